"""What the API answers. Where the service's own shape can be imported without a database, it is that one.

Unknown fields are ignored, and words that are not on a list are taken as they are (`app.newer`), so that a client may
be older than its service.
"""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from app.access.schemas import AuditEntry
from app.client.errors import NothingDelivered
from app.datasets.inspection import ArraySpec
from app.errors import Fault
from app.jobs import schemas
from app.jobs.report import TrialReport
from app.jobs.schemas import JobArtifact, JobEvent, JobEvents
from app.jobs.states import TERMINAL, JobState
from app.models.inspection import TensorSpec
from app.newer import NEWER, MayGrow
from app.recipes.schemas import PassDescription

__all__ = [
    "Artifact",
    "AuditEntry",
    "Dataset",
    "Job",
    "JobArtifact",
    "JobEvent",
    "JobEvents",
    "JobState",
    "Model",
    "Page",
    "Pass",
    "Upload",
    "trial_of",
]

Pass = PassDescription


class Upload(BaseModel):
    """What a model and a dataset have in common."""

    id: UUID
    name: str
    status: Annotated[Literal["inspecting", "ready", "rejected"], MayGrow()]
    problem: Fault | None = None
    media_type: str | None = None
    sha256: str
    size_bytes: int
    created_at: datetime


class Model(Upload):
    """A model; the facts are null until it is `ready`."""

    inputs: list[TensorSpec] | None = None
    outputs: list[TensorSpec] | None = None
    opset: int | None = None
    ir_version: int | None = None
    domains: dict[str, int] | None = None
    producer: str | None = None
    parameter_count: int | None = None
    mac_count: int | None = None
    operators: dict[str, int] | None = None
    trainable: bool | None = None
    training_blockers: list[str] | None = None


class Dataset(Upload):
    """A dataset; the facts are null until it is `ready`."""

    arrays: list[ArraySpec] | None = None
    sample_count: int | None = None


class Job(schemas.Job):
    """A job."""

    @property
    def is_over(self) -> bool:
        # The end is known of a state that is not.
        return self.state in TERMINAL or self.finished_at is not None

    @property
    def succeeded(self) -> bool:
        return self.state is JobState.SUCCEEDED

    @property
    def is_search(self) -> bool:
        """Whether Lathe was to find the recipe."""
        return self.request is not None and self.request.get("recipe") == "auto"

    @property
    def optimized(self) -> JobArtifact | None:
        """The model that stands for the job: promoted, or else the one that its summary and report are about.

        None where that one is not there, whatever else was found. Of a search that runs, or did not come to its end, it
        is the best that was found so far (`provisional`).
        """
        name = self.summary.file_name if self.summary else None
        models = self._models()
        standing = [one for one in models if name in (None, one.file_name)]
        return next((one for one in models if one.id == self.promoted_artifact_id), standing[0] if standing else None)

    def delivered(self, kind: str = "model") -> JobArtifact:
        """The file of that kind that stands for the job. Raises NothingDelivered, saying how the job stands."""
        first = next((artifact for artifact in self.artifacts if artifact.kind == kind), None)
        found = self.optimized if kind == "model" else first
        if found is not None:
            return found
        if not self.is_over:
            raise NothingDelivered(f"Job {self.id} is {self.state}, as far as is known here: wait for it first.")
        others = self._models() if kind == "model" else []
        if others:
            named = ", ".join(f"`{one.file_name}` (artifact {one.id})" for one in others)
            raise NothingDelivered(
                f"The model that job {self.id} delivered was deleted, and no other one stands for it. It also found "
                f"{named}: fetch one by that id, or promote it."
            )
        none_left = " that is still there." if self.succeeded else "."
        why = f": {self.error.detail} ({self.error.code})" if self.error else none_left
        raise NothingDelivered(f"Job {self.id} is {self.state} and has delivered no {kind}{why}")

    def _models(self) -> list[JobArtifact]:
        return [artifact for artifact in self.artifacts if artifact.kind == "model"]


class Artifact(JobArtifact):
    """A file that a job delivered."""

    job_id: UUID | None = None
    created_at: datetime | None = None


def trial_of(event: JobEvent) -> TrialReport | None:
    """What a search tried, as an event tells it; None of other events, and where a newer service tells it otherwise."""
    try:
        return TrialReport.model_validate(event.data.get("trial"), context=NEWER)
    except ValidationError:
        return None


Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = None
