"""Rows for tests of the jobs domain."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.access.service import ensure_workspace
from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow
from app.database import Database
from app.jobs.states import JobKind
from app.jobs.tables import JobEventRow, JobRow
from app.models.tables import ModelRow

INSPECTION = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 2]}],
    "opset": 17,
    "ir_version": 9,
    "domains": {},
    "parameter_count": 8,
    "mac_count": 8,
    "operators": {"Gemm": 1},
    "trainable": True,
}


def add_job(database: Database, **columns: Any) -> UUID:
    """A queued job of the workspace `default`, due now; `columns` override."""
    with database.session_scope() as session:
        defaults: dict[str, Any] = {
            "id": uuid7(),
            "workspace_id": ensure_workspace(session, "default"),
            "kind": JobKind.OPTIMIZE,
            "queue": "cpu",
            "budget_seconds": 60.0,
            "max_attempts": 3,
            "expires_at": datetime.now(UTC) + timedelta(days=1),
        }
        row = JobRow(**(defaults | columns))
        session.add(row)
    return row.id


def read_job(database: Database, job_id: UUID) -> JobRow:
    with database.session_scope() as session:
        return session.get_one(JobRow, job_id)


def add_blob(session: Session, workspace_id: UUID) -> BlobRow:
    """Three bytes that nothing stored."""
    blob = BlobRow(id=uuid7(), workspace_id=workspace_id, sha256=uuid7().bytes * 2, size_bytes=3)
    session.add(blob)
    session.flush()
    return blob


def events_of(database: Database, job_id: UUID, kind: str) -> list[dict[str, Any]]:
    """What the job's events of this kind say, the oldest first."""
    with database.session_scope() as session:
        of_kind = select(JobEventRow.data).where(JobEventRow.job_id == job_id, JobEventRow.type == kind)
        return list(session.scalars(of_kind.order_by(JobEventRow.id)))


def add_artifact(database: Database, workspace_id: UUID, job_id: UUID, **columns: Any) -> UUID:
    """A model that the job delivered, of three bytes that nothing stored; `columns` override."""
    with database.session_scope() as session:
        blob = add_blob(session, workspace_id)
        defaults: dict[str, Any] = {
            "id": uuid7(),
            "workspace_id": workspace_id,
            "job_id": job_id,
            "blob_id": blob.id,
            "kind": "model",
            "file_name": "smaller.onnx",
            "media_type": "application/octet-stream",
            "sha256": blob.sha256,
            "size_bytes": 3,
        }
        row = ArtifactRow(**(defaults | columns))
        session.add(row)
    return row.id


def add_model(database: Database, workspace_id: UUID, **columns: Any) -> UUID:
    """A model that was inspected and found ready; `columns` override."""
    with database.session_scope() as session:
        blob = add_blob(session, workspace_id)
        known: dict[str, Any] = {
            "id": uuid7(),
            "workspace_id": workspace_id,
            "blob_id": blob.id,
            "name": "model",
            "media_type": "application/octet-stream",
            "sha256": blob.sha256,
            "size_bytes": 3,
            "status": "ready",
            "inspection": INSPECTION,
        }
        row = ModelRow(**(known | columns))
        session.add(row)
    return row.id


async def submit(client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job
