"""The audit log as the API shows it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class AuditEntry(BaseModel):
    """One thing that was done."""

    id: UUID = Field(description="The entry.")
    created_at: datetime = Field(description="When.")
    action: str = Field(description="What: `job.submitted`, `model.deleted`, `key.revoked` and so on.")
    object_id: UUID = Field(
        description="What it was done to: a model, a dataset, a job, an artifact, a key, a webhook, or the workspace."
    )
    key_id: UUID | None = Field(description="The key it was done with; null: by whoever runs the service, on its host.")
    key_prefix: str | None = Field(description="What that key begins with, behind `lth_`.")
    request_id: str | None = Field(description="The `X-Request-Id` of the request, which the log has as well.")
    details: dict[str, Any] = Field(description="More of it; the fields depend on the action.")
