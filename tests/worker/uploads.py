"""Models and datasets as rows and stored bytes, without the API in between."""

import hashlib
import io
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from uuid_utils.compat import uuid7

from app.access.service import ensure_workspace
from app.blobs.tables import BlobRow, storage_key
from app.database import Database
from app.datasets.tables import DatasetRow
from app.models.tables import ModelRow
from app.storage import Storage


def store_upload(
    database: Database,
    storage: Storage,
    table: type[ModelRow] | type[DatasetRow],
    content: bytes,
    folder: Path,
    **columns: Any,
) -> UUID:
    """A row of `table` in the workspace `default`, still to be inspected, with its bytes in storage."""
    path = folder / f"upload-{uuid7()}"
    path.write_bytes(content)
    digest = hashlib.sha256(content).digest()
    with database.session_scope() as session:
        workspace_id = ensure_workspace(session, "default")
        blob = BlobRow(id=uuid7(), workspace_id=workspace_id, sha256=digest, size_bytes=len(content))
        storage.store(path, storage_key(workspace_id, blob.id))
        session.add(blob)
        session.flush()
        row = table(
            id=uuid7(),
            workspace_id=workspace_id,
            blob_id=blob.id,
            sha256=digest,
            size_bytes=len(content),
            **({"name": "upload", "media_type": "application/octet-stream"} | columns),
        )
        session.add(row)
    return row.id


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
