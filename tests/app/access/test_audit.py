"""The audit log: what was done, by which key, in which request; only ever added to."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from app.access.keys import SCOPES
from app.access.service import revoke_key, set_limits
from app.access.tables import ApiKeyRow, AuditRow
from app.database import Database
from app.jobs.states import JobState
from tests.app.jobs.factories import add_artifact, add_job
from tests.app.uploads import OCTETS, settle, upload
from tests.conftest import MakeKey, bearer

Headers = dict[str, str]
RECIPE = [{"pass": "optimize_graph"}]


@pytest.fixture
def key(make_key: MakeKey) -> str:
    return make_key(scopes=SCOPES)


@pytest.fixture
def administrator(key: str) -> Headers:
    return bearer(key)


async def read(client: httpx.AsyncClient, headers: Headers, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/audit?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["items"]
    return entries


async def test_what_is_done_through_the_api_is_told_with_key_and_request(
    client: httpx.AsyncClient, key: str, administrator: Headers, database: Database, workspace_id: UUID
) -> None:
    model, dataset = await upload(client, administrator, "models"), await upload(client, administrator, "datasets")
    settle(database, "models", model["id"])
    settle(database, "datasets", dataset["id"])
    over = add_job(database, state=JobState.SUCCEEDED)
    artifact_id, other = (add_artifact(database, workspace_id, over) for _ in range(2))
    body = {"model_id": model["id"], "recipe": RECIPE}
    job = (await client.post("/v1/jobs", json=body, headers=administrator | {"X-Request-Id": "of-the-job"})).json()
    await client.post(f"/v1/jobs/{job['id']}/cancel", headers=administrator)
    await client.post(f"/v1/jobs/{over}/promote", json={"artifact_id": str(artifact_id)}, headers=administrator)
    for path in (f"models/{model['id']}", f"datasets/{dataset['id']}", f"artifacts/{other}"):
        assert (await client.delete(f"/v1/{path}", headers=administrator)).status_code == 204

    entries = await read(client, administrator)
    assert [(entry["action"], entry["object_id"]) for entry in reversed(entries[:-1])] == [
        ("model.created", model["id"]),
        ("dataset.created", dataset["id"]),
        ("job.submitted", job["id"]),
        ("job.cancelled", job["id"]),
        ("job.promoted", str(over)),
        ("model.deleted", model["id"]),
        ("dataset.deleted", dataset["id"]),
        ("artifact.deleted", str(other)),
    ]
    assert {entry["key_prefix"] for entry in entries[:-1]} == {key.split("_")[1]}
    assert entries[0]["key_id"] == entries[-1]["object_id"], "the first entry is of this key"
    assert len({entry["request_id"] for entry in entries[:-1]}) == 8
    by_action = {entry["action"]: entry for entry in entries}
    assert by_action["job.submitted"]["request_id"] == "of-the-job"
    assert by_action["job.promoted"]["details"] == {"artifact_id": str(artifact_id)}
    assert by_action["artifact.deleted"]["details"] == {"job_id": str(over)}


async def test_what_is_done_on_the_host_is_told_without_a_key(
    client: httpx.AsyncClient, administrator: Headers, make_key: MakeKey, database: Database
) -> None:
    prefix = make_key(scopes=("read",)).split("_")[1]
    with database.session_scope() as session:
        assert revoke_key(session, prefix)
        assert not revoke_key(session, prefix)
        assert set_limits(session, "default", {"queued_jobs": 7})
    entries = (await read(client, administrator))[:3]
    assert [(entry["action"], entry["details"]) for entry in reversed(entries)] == [
        ("key.created", {"prefix": prefix, "scopes": ["read"]}),
        ("key.revoked", {"prefix": prefix}),
        ("limits.changed", {"queued_jobs": 7}),
    ]
    assert {(entry["key_id"], entry["key_prefix"], entry["request_id"]) for entry in entries} == {(None, None, None)}


async def test_what_was_refused_or_changed_nothing_is_not_told(
    client: httpx.AsyncClient, administrator: Headers, database: Database
) -> None:
    model = await upload(client, administrator)
    settle(database, "models", model["id"])
    sent = {"json": {"model_id": model["id"], "recipe": RECIPE}, "headers": administrator | {"Idempotency-Key": "one"}}
    job = (await client.post("/v1/jobs", **sent)).json()
    before = len(await read(client, administrator))
    assert (await client.post("/v1/jobs", **sent)).json()["id"] == job["id"]
    assert (await upload(client, administrator))["id"] == model["id"]
    assert (await client.delete(f"/v1/models/{model['id']}", headers=administrator)).status_code == 409
    assert (await client.post("/v1/models?name=x", content=b"", headers=administrator | OCTETS)).status_code == 422
    assert len(await read(client, administrator)) == before


async def test_the_log_is_filtered_and_paged_and_each_workspaces_own(
    client: httpx.AsyncClient, administrator: Headers, make_key: MakeKey
) -> None:
    elsewhere = bearer(make_key(workspace="elsewhere", scopes=SCOPES))
    models = [await upload(client, administrator, content=str(number).encode()) for number in range(5)]
    await upload(client, elsewhere)
    assert len(await read(client, elsewhere, "action=model.created")) == 1
    assert [entry["object_id"] for entry in await read(client, administrator, "action=model.created")] == [
        model["id"] for model in reversed(models)
    ]
    [entry] = await read(client, administrator, f"object_id={models[2]['id']}")
    assert entry["action"] == "model.created"
    seen, cursor = [], ""
    while True:
        page = (await client.get(f"/v1/audit?limit=2{cursor}", headers=administrator)).json()
        seen += [entry["object_id"] for entry in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 6


@pytest.mark.parametrize("statement", ["DELETE FROM audit_log", "UPDATE audit_log SET action = 'other'"])
def test_entries_are_only_ever_added(database: Database, make_key: MakeKey, statement: str) -> None:
    make_key()
    with pytest.raises(IntegrityError, match="only ever added to"), database.session_scope() as session:
        session.execute(text(statement))
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 1


async def test_an_entry_shares_the_fate_of_what_it_tells_of(
    client: httpx.AsyncClient, administrator: Headers, database: Database
) -> None:
    """Where the log cannot be written, nothing is done."""
    with database.session_scope() as session:
        session.execute(
            text("ALTER TABLE audit_log ADD CONSTRAINT no_room CHECK (action <> 'model.created') NOT VALID")
        )
    try:
        answer = await client.post("/v1/models?name=x", content=b"bytes", headers=administrator | OCTETS)
        assert answer.status_code == 500
        assert (await client.get("/v1/models", headers=administrator)).json()["items"] == []
    finally:
        with database.session_scope() as session:
            session.execute(text("ALTER TABLE audit_log DROP CONSTRAINT no_room"))


def test_no_secret_is_in_the_log(database: Database, make_key: MakeKey) -> None:
    secret = make_key().split("_", 2)[2]
    with database.session_scope() as session:
        rows = "\n".join(session.scalars(text("SELECT to_jsonb(audit_log)::text FROM audit_log")))
        assert secret not in rows
        assert session.scalars(select(ApiKeyRow)).one().secret_hash.hex() not in rows
