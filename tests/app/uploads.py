"""Uploads through the API, and the states that inspection would bring them into."""

import base64
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import update

from app.database import Database
from app.datasets.tables import DatasetRow
from app.jobs.tables import JobRow
from app.models.tables import ModelRow

MODEL_FACTS: dict[str, Any] = {
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["N", 1, 8, None]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": None}],
    "opset": 17,
    "ir_version": 9,
    "domains": {"com.microsoft": 1},
    "producer": "pytorch",
    "parameter_count": 1234,
    "mac_count": None,
    "operators": {"Conv": 2, "Relu": 1},
    "trainable": False,
    "training_blockers": ["Loop"],
}
DATASET_FACTS: dict[str, Any] = {
    "arrays": [{"name": "image", "dtype": "float32", "shape": [100, 1, 8, 8]}],
    "sample_count": 100,
}
FACTS = {"models": MODEL_FACTS, "datasets": DATASET_FACTS}
TABLES: dict[str, type[ModelRow] | type[DatasetRow]] = {"models": ModelRow, "datasets": DatasetRow}
OCTETS = {"Content-Type": "application/octet-stream"}


def metadata(**said: str) -> str:
    """`Upload-Metadata` of a resumable upload."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())


async def upload(
    client: httpx.AsyncClient, headers: dict[str, str], kind: str = "models", content: bytes = b"bytes", **query: str
) -> dict[str, Any]:
    """The upload as the API shows it."""
    answer = await client.post(
        f"/v1/{kind}", params={"name": "thing"} | query, content=content, headers=headers | OCTETS
    )
    assert answer.status_code in (200, 201), answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def end_jobs(database: Database) -> None:
    """As if somebody had cancelled every job that waits."""
    with database.session_scope() as session:
        session.execute(update(JobRow).where(JobRow.state == "queued").values(state="cancelled"))


def settle(database: Database, kind: str, row_id: str, problem: dict[str, Any] | None = None) -> None:
    """As if inspection had accepted an upload, or rejected it with `problem`."""
    end_jobs(database)
    values: dict[str, Any] = {"status": "rejected", "problem": problem}
    if problem is None:
        values = {"status": "ready", "inspection": FACTS[kind]}
    with database.session_scope() as session:
        table = TABLES[kind]
        session.execute(update(table).where(table.id == UUID(row_id)).values(values))
