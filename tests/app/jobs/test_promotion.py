"""Picking one of a job's models after its end."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from app.artifacts.tables import PromotionRow
from app.client import Job
from app.database import Database
from app.jobs.tables import JobRow
from tests.app.jobs.factories import add_artifact, add_job, read_job

Headers = dict[str, str]


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database, state="succeeded")


@pytest.fixture
def models(database: Database, workspace_id: UUID, job_id: UUID) -> list[UUID]:
    """Two models that the job delivered, the best first."""
    return [add_artifact(database, workspace_id, job_id, file_name=f"{name}.onnx") for name in ("best", "other")]


async def promote(client: httpx.AsyncClient, job_id: UUID, artifact_id: UUID, headers: Headers) -> httpx.Response:
    return await client.post(f"/v1/jobs/{job_id}/promote", json={"artifact_id": str(artifact_id)}, headers=headers)


async def test_the_model_promoted_last_stands_for_its_job(
    client: httpx.AsyncClient, writer: Headers, job_id: UUID, models: list[UUID]
) -> None:
    before = await client.get(f"/v1/jobs/{job_id}", headers=writer)
    assert before.json()["promoted_artifact_id"] is None
    tags = [before.headers["etag"]]
    for model in (models[1], models[0], models[1]):
        answer = await promote(client, job_id, model, writer)
        assert (answer.status_code, answer.json()["promoted_artifact_id"]) == (200, str(model))
        tags.append(answer.headers["etag"])
    read = await client.get(f"/v1/jobs/{job_id}", headers=writer)
    assert Job.model_validate(read.json()).delivered().file_name == "other.onnx"
    listed = (await client.get("/v1/jobs", headers=writer)).json()["items"]
    assert [job["promoted_artifact_id"] for job in listed] == [str(models[1])]
    # Who polls with an ETag hears of it, though the row of the job is as it was.
    assert len(set(tags)) == len(tags)
    assert (await client.get(f"/v1/jobs/{job_id}", headers=writer | {"If-None-Match": tags[0]})).status_code == 200


async def test_the_job_itself_does_not_change(
    client: httpx.AsyncClient, writer: Headers, database: Database, job_id: UUID, models: list[UUID]
) -> None:
    version = read_job(database, job_id).version
    await promote(client, job_id, models[1], writer)
    assert read_job(database, job_id).version == version


async def test_the_same_again_is_no_second_promotion(
    client: httpx.AsyncClient, writer: Headers, database: Database, job_id: UUID, models: list[UUID]
) -> None:
    first, again = [await promote(client, job_id, models[1], writer) for _ in range(2)]
    assert first.headers["etag"] == again.headers["etag"]
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(PromotionRow)) == 1


@pytest.mark.parametrize(
    ("columns", "kind", "status", "code"),
    [
        ({"state": "succeeded"}, "manifest", 422, "not_a_model"),
        ({"state": "succeeded"}, "ort", 422, "not_a_model"),
        ({"state": "queued"}, "model", 409, "job_not_over"),
    ],
    ids=["manifest", "ort", "not-over"],
)
async def test_what_cannot_stand_for_a_job_is_refused_with_a_remedy(
    client: httpx.AsyncClient,
    writer: Headers,
    database: Database,
    workspace_id: UUID,
    columns: dict[str, Any],
    kind: str,
    status: int,
    code: str,
) -> None:
    job_id = add_job(database, **columns)
    artifact_id = add_artifact(database, workspace_id, job_id, kind=kind)
    answer = await promote(client, job_id, artifact_id, writer)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["remedy"]


async def test_what_is_not_there_or_not_this_jobs_is_not_found(
    client: httpx.AsyncClient,
    writer: Headers,
    stranger: Headers,
    database: Database,
    workspace_id: UUID,
    job_id: UUID,
    models: list[UUID],
) -> None:
    of_another = add_artifact(database, workspace_id, add_job(database, state="succeeded"))
    asked = [(job_id, uuid7(), writer), (job_id, of_another, writer), (uuid7(), models[0], writer)]
    for answer in [await promote(client, *each) for each in [*asked, (job_id, models[0], stranger)]]:
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_reading_is_not_enough(
    client: httpx.AsyncClient, reader: Headers, job_id: UUID, models: list[UUID]
) -> None:
    assert (await promote(client, job_id, models[0], reader)).json()["code"] == "missing_scope"


async def test_promotions_are_only_ever_added(
    client: httpx.AsyncClient, writer: Headers, database: Database, job_id: UUID, models: list[UUID]
) -> None:
    await promote(client, job_id, models[1], writer)
    for statement in ("DELETE FROM promotions", "UPDATE promotions SET created_at = now()"):
        with pytest.raises(DBAPIError, match="only ever added"), database.session_scope() as session:
            session.execute(text(statement))
    with database.session_scope() as session:
        assert session.get_one(JobRow, job_id).state == "succeeded"
