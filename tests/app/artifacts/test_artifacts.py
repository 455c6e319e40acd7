"""Artifacts: what a job delivered, by id."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from app.artifacts.tables import ArtifactRow, PromotionRow
from app.blobs.tables import BlobRow
from app.database import Database
from app.jobs import lease
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_artifact, add_job
from tests.app.uploads import end_jobs
from worker.runner.contract import OutputFile

Headers = dict[str, str]
CONTENT = b"an optimized model"


@pytest.fixture
def artifact(database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path) -> ArtifactRow:
    blob = BlobRow(
        id=uuid7(), workspace_id=workspace_id, sha256=hashlib.sha256(CONTENT).digest(), size_bytes=len(CONTENT)
    )
    (tmp_path / "output").write_bytes(CONTENT)
    storage.store(tmp_path / "output", blob.storage_key)
    row = ArtifactRow(
        id=uuid7(),
        workspace_id=workspace_id,
        job_id=add_job(database),
        blob_id=blob.id,
        kind="model",
        file_name="digits.quantized.onnx",
        media_type="application/octet-stream",
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
    )
    with database.session_scope() as session:
        session.add(blob)
        session.flush()
        session.add(row)
    return row


async def test_an_artifact_is_described(client: httpx.AsyncClient, reader: Headers, artifact: ArtifactRow) -> None:
    answer = await client.get(f"/v1/artifacts/{artifact.id}", headers=reader)
    shown: dict[str, Any] = answer.json()
    assert answer.status_code == 200
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "id": str(artifact.id),
        "job_id": str(artifact.job_id),
        "kind": "model",
        "file_name": "digits.quantized.onnx",
        "media_type": "application/octet-stream",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "size_bytes": len(CONTENT),
        "provisional": False,
        "trial": None,
    }


@pytest.mark.parametrize("kind", get_args(OutputFile.model_fields["kind"].annotation))
async def test_whatever_a_runner_may_deliver_is_kept_and_shown(
    kind: str, client: httpx.AsyncClient, reader: Headers, artifact: ArtifactRow, database: Database
) -> None:
    with database.session_scope() as session:
        session.execute(update(ArtifactRow).values(kind=kind))
    answer = await client.get(f"/v1/artifacts/{artifact.id}", headers=reader)
    assert (answer.status_code, answer.json()["kind"]) == (200, kind)


async def test_an_artifact_is_downloaded(client: httpx.AsyncClient, reader: Headers, artifact: ArtifactRow) -> None:
    address = f"/v1/artifacts/{artifact.id}/content"
    answer = await client.get(address, headers=reader)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{artifact.sha256.hex()}"'
    assert answer.headers["content-disposition"] == 'attachment; filename="digits.quantized.onnx"'
    part = await client.get(address, headers=reader | {"Range": "bytes=3-11"})
    assert (part.status_code, part.content) == (206, CONTENT[3:12])
    assert (await client.head(address, headers=reader)).headers["content-length"] == str(len(CONTENT))


async def test_an_artifact_of_another_workspace_does_not_exist(
    client: httpx.AsyncClient, stranger: Headers, artifact: ArtifactRow
) -> None:
    for address in (f"/v1/artifacts/{artifact.id}", f"/v1/artifacts/{artifact.id}/content"):
        answer = await client.get(address, headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_best_so_far_is_shown_with_what_was_measured_on_it_and_downloaded_while_the_job_runs(
    client: httpx.AsyncClient, reader: Headers, artifact: ArtifactRow, database: Database
) -> None:
    trial = {"name": "static", "recipe": ["quantize_static"], "outcome": "tried", "explanation": "-", "seconds": 1.0}
    with database.session_scope() as session:
        assert lease.claim(session, artifact.job_id, "test", 45.0) is not None
        session.execute(update(ArtifactRow).values(trial=trial, gain=0.5))
    address = f"/v1/artifacts/{artifact.id}"
    job = (await client.get(f"/v1/jobs/{artifact.job_id}", headers=reader)).json()
    assert job["state"] == "running"
    for shown in ((await client.get(address, headers=reader)).json(), *job["artifacts"]):
        assert (shown["provisional"], shown["trial"]["name"]) == (True, "static")
    part = await client.get(f"{address}/content", headers=reader | {"Range": "bytes=3-11"})
    assert (part.status_code, part.content) == (206, CONTENT[3:12])


async def test_a_deleted_artifact_is_gone_from_its_job_and_its_bytes_go(
    client: httpx.AsyncClient,
    reader: Headers,
    writer: Headers,
    stranger: Headers,
    artifact: ArtifactRow,
    database: Database,
    storage: Storage,
) -> None:
    end_jobs(database)
    address, job = f"/v1/artifacts/{artifact.id}", f"/v1/jobs/{artifact.job_id}"
    before = (await client.get(job, headers=reader)).headers["etag"]
    assert (await client.delete(address, headers=reader)).json()["code"] == "missing_scope"
    assert (await client.delete(address, headers=stranger)).json()["code"] == "not_found"
    assert collect_garbage(database, storage, 0) == 0
    assert (await client.delete(address, headers=writer)).status_code == 204
    assert (await client.delete(address, headers=writer)).status_code == 404
    for path in (address, f"{address}/content"):
        answer = await client.get(path, headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    after = await client.get(job, headers=reader | {"If-None-Match": before})
    assert (after.status_code, after.json()["artifacts"]) == (200, [])
    assert collect_garbage(database, storage, 0) == 1
    assert list(storage.list_sync("blobs")) == []


@pytest.mark.parametrize("why", ["artifact_promoted", "job_not_over"])
async def test_what_is_still_needed_is_not_deleted(
    client: httpx.AsyncClient, writer: Headers, artifact: ArtifactRow, database: Database, workspace_id: UUID, why: str
) -> None:
    if why == "artifact_promoted":
        end_jobs(database)
        other = add_artifact(database, workspace_id, artifact.job_id)
        with database.session_scope() as session:  # also where another one stands for the job by now
            for artifact_id in (artifact.id, other):
                session.add(PromotionRow(job_id=artifact.job_id, artifact_id=artifact_id))
                session.flush()
    answer = await client.delete(f"/v1/artifacts/{artifact.id}", headers=writer)
    assert (answer.status_code, answer.json()["code"]) == (409, why)
    assert str(artifact.job_id) in answer.json()["detail"]
    assert answer.json()["remedy"]
    assert (await client.get(f"/v1/artifacts/{artifact.id}/content", headers=writer)).status_code == 200


async def test_an_artifact_is_deleted_or_promoted_and_never_both(
    client: httpx.AsyncClient, writer: Headers, database: Database, workspace_id: UUID
) -> None:
    job_id = add_job(database, state="succeeded")
    for _ in range(4):
        artifact_id = add_artifact(database, workspace_id, job_id)
        deleted, promoted = await asyncio.gather(
            client.delete(f"/v1/artifacts/{artifact_id}", headers=writer),
            client.post(f"/v1/jobs/{job_id}/promote", json={"artifact_id": str(artifact_id)}, headers=writer),
        )
        assert (deleted.status_code, promoted.status_code) in {(204, 404), (409, 200)}


def test_a_job_has_one_best_so_far(database: Database, workspace_id: UUID) -> None:
    job_id = add_job(database)
    add_artifact(database, workspace_id, job_id, trial={"name": "first"}, gain=0.5)
    with pytest.raises(IntegrityError, match="uq_artifacts_provisional"):
        add_artifact(database, workspace_id, job_id, trial={"name": "second"}, gain=0.6)


async def test_a_job_lists_its_models_first_the_winner_before_the_others(
    client: httpx.AsyncClient, reader: Headers, database: Database, workspace_id: UUID
) -> None:
    job_id = add_job(database)
    for kind, name in (("manifest", "m"), ("plot", "p"), ("ort", "o"), ("model", "winner"), ("model", "second")):
        add_artifact(database, workspace_id, job_id, kind=kind, file_name=name)
    job = (await client.get(f"/v1/jobs/{job_id}", headers=reader)).json()
    names = [each["file_name"] for each in job["artifacts"]]
    assert names[:2] == ["winner", "second"]
    assert sorted(names[2:]) == ["m", "o", "p"]
