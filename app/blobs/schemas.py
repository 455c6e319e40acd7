"""What the API shows of every upload."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.blobs.tables import UploadColumns
from app.blobs.uploads import Status
from app.errors import Fault


class Upload(BaseModel):
    """An upload."""

    id: UUID = Field(description="Its id.")
    name: str = Field(description="Its name, as first uploaded.")
    status: Status = Field(description="`inspecting` until a worker has looked at it, then `ready` or `rejected`.")
    problem: Fault | None = Field(description="Why it was rejected; null otherwise.")
    media_type: str = Field(description="The Content-Type that it came with.")
    sha256: str = Field(description="Hash of the bytes, in hex.")
    size_bytes: int = Field(description="Size of the bytes as uploaded.")
    created_at: datetime = Field(description="When it was uploaded.")


def common(row: UploadColumns) -> dict[str, Any]:
    """The fields of `Upload`, as a row has them."""
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "problem": row.problem,
        "media_type": row.media_type,
        "sha256": row.sha256.hex(),
        "size_bytes": row.size_bytes,
        "created_at": row.created_at,
    }
