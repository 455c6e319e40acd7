"""Artifacts as the API shows them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.jobs.report import TrialReport


class Artifact(BaseModel):
    """A file that a job delivered, or the best it has found so far."""

    id: UUID = Field(description="Its id.")
    job_id: UUID = Field(description="The job that delivered it.")
    kind: Literal["model", "manifest", "ort", "plot"] = Field(
        description="An optimized model, what is needed to make it again, the model in ONNX Runtime's own format, or "
        "a picture of a search's front."
    )
    file_name: str = Field(description="A safe name for it.")
    media_type: str = Field(description="Its media type.")
    sha256: str = Field(description="Hash of the bytes, in hex; also the ETag of its content.")
    size_bytes: int = Field(description="Its size.")
    created_at: datetime = Field(description="When the job delivered it.")
    provisional: bool = Field(description="The best that a search had found so far; see the job's `artifacts`.")
    trial: TrialReport | None = Field(description="What a provisional one was measured at.")
