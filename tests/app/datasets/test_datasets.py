"""Datasets: what is theirs alone among uploads."""

from uuid import UUID

import httpx
import pytest

from app.database import Database
from app.jobs.tables import JobDatasetRow
from tests.app.jobs.factories import add_job
from tests.app.uploads import settle, upload

Headers = dict[str, str]


@pytest.mark.parametrize(
    "media_type",
    ["application/octet-stream", "application/x-npz", "application/zip", "application/x-safetensors", None],
)
async def test_the_types_that_a_dataset_may_come_as(
    client: httpx.AsyncClient, writer: Headers, media_type: str | None
) -> None:
    headers = writer | ({"Content-Type": media_type} if media_type else {})
    answer = await client.post("/v1/datasets?name=x", content=b"bytes", headers=headers)
    assert answer.status_code == 201
    assert answer.json()["media_type"] == (media_type or "application/octet-stream")


@pytest.mark.parametrize("role", ["calibration", "training", "evaluation"])
async def test_a_dataset_stays_while_a_job_uses_it_in_any_role(
    client: httpx.AsyncClient, writer: Headers, database: Database, role: str
) -> None:
    shown = await upload(client, writer, "datasets")
    settle(database, "datasets", shown["id"])
    job_id = add_job(database)
    with database.session_scope() as session:
        session.add(JobDatasetRow(job_id=job_id, role=role, dataset_id=UUID(shown["id"])))
    answer = await client.delete(f"/v1/datasets/{shown['id']}", headers=writer)
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert str(job_id) in answer.json()["detail"]
