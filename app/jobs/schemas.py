"""Jobs as the API shows them."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.errors import Fault
from app.jobs.report import Summary, TrialReport, Verdict
from app.jobs.states import JobKind, JobState
from app.newer import MayGrow


class JobArtifact(BaseModel):
    """A file that a job delivered, or the best it has found so far."""

    id: UUID = Field(description="Its id under `/v1/artifacts`.")
    kind: str = Field(description="`model`, `manifest`, `ort` or `plot`.")
    file_name: str = Field(description="A safe name for it.")
    media_type: str = Field(description="Its media type.")
    size_bytes: int = Field(description="Its size.")
    sha256: str = Field(description="Its hash, in hex.")
    provisional: bool = Field(
        default=False,
        description="The best that a search had found so far, by an estimate: while the job runs it may be replaced; "
        "it is kept where the job delivers nothing else.",
    )
    trial: TrialReport | None = Field(default=None, description="What a provisional one was measured at.")


class Job(BaseModel):
    """A job."""

    id: UUID = Field(description="The job.")
    kind: Annotated[JobKind, MayGrow()] = Field(description="`optimize`, or an inspection that an upload queued.")
    state: Annotated[JobState, MayGrow()] = Field(description="Where it is in its life.")
    phase: str | None = Field(description="What a running job is doing, in one word.")
    progress: float = Field(description="0 to 1.")
    eta_seconds: float | None = Field(description="Estimated time left, where it is known.")
    queue_position: int | None = Field(
        description="Jobs likely to come before it, while it is queued: workspaces take turns."
    )
    attempt: int = Field(description="Attempts so far.")
    max_attempts: int = Field(description="Attempts it may take.")
    model_id: UUID | None = Field(description="The model it works on.")
    request: dict[str, Any] | None = Field(description="What was asked, every default filled in.")
    cancel_requested_at: datetime | None = Field(description="When a cancel was asked for.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(description="When its first attempt began.")
    finished_at: datetime | None = Field(description="When it came into its terminal state.")
    error: Fault | None = Field(description="Why it failed.")
    verdict: Verdict | None = Field(description="Whether the contract holds.")
    summary: Summary | None = Field(description="The answer at a glance.")
    artifacts: list[JobArtifact] = Field(description="What it delivered; before, the best found so far.")
    promoted_artifact_id: UUID | None = Field(
        default=None, description="Of its models, the one that was picked last with `promote`; null before."
    )


class Promotion(BaseModel):
    """Which model is to stand for its job."""

    model_config = ConfigDict(extra="forbid")

    artifact_id: UUID = Field(description="A model that the job delivered.")


class JobEvent(BaseModel):
    """One thing that happened to a job."""

    id: int = Field(description="Rises with time; `Last-Event-ID` resumes after it.")
    type: str = Field(
        description="`state`, `phase`, `progress`, `log`; of training `epoch` (one that ended: losses, metric); of a "
        "search `trial` (one that was tried) and `best`."
    )
    at: datetime = Field(description="When.")
    data: dict[str, Any] = Field(description="What; its fields depend on `type`.")

    # As a worker of the release before tells it, beside a database that is migrated. Until a migration
    # behind that release renames what such workers left.
    @model_validator(mode="after")
    def _by_its_former_name(self) -> Self:
        if self.type in ("attempt", "best") and "attempt" in self.data:
            self.type = "trial" if self.type == "attempt" else self.type
            self.data = {"trial" if name == "attempt" else name: value for name, value in self.data.items()}
        return self


class JobEvents(BaseModel):
    """The events of a job, oldest first."""

    items: list[JobEvent] = Field(
        description="The events; fewer than `limit` where they are large. None: no more have happened yet."
    )
    next_after: int = Field(description="Ask with this as `after` for what came later.")
