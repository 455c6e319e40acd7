"""Who may call: keys, scopes, workspaces."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from uuid_utils.compat import uuid7

from app.access.keys import generate, hash_secret, split
from app.access.service import list_keys, revoke_key
from app.access.tables import ApiKeyRow
from app.database import Database
from tests.app.jobs.factories import add_job
from tests.app.uploads import settle, upload
from tests.conftest import MakeKey, bearer

Headers = dict[str, str]
OPEN = {"/", "/healthz", "/readyz", "/metrics"}


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    scope: str

    @property
    def address(self) -> str:
        """With an id in it that nothing has."""
        return "/".join(str(uuid7()) if part.startswith("{") else part for part in self.path.split("/"))


def operations(app: FastAPI) -> list[Operation]:
    found = []
    for path, item in app.openapi()["paths"].items():
        for method in item:
            scope = "read" if method == "get" else "write"
            found.append(Operation(method.upper(), path, scope))
    return [operation for operation in found if operation.path not in OPEN]


async def call(client: httpx.AsyncClient, operation: Operation, headers: Headers) -> httpx.Response:
    return await client.request(operation.method, operation.address, headers=headers)


async def test_every_operation_wants_a_key(app: FastAPI, client: httpx.AsyncClient) -> None:
    for operation in operations(app):
        answer = await call(client, operation, {})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), operation
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_every_operation_wants_its_scope(app: FastAPI, client: httpx.AsyncClient, make_key: MakeKey) -> None:
    for operation in operations(app):
        other = "write" if operation.scope == "read" else "read"
        answer = await call(client, operation, bearer(make_key(scopes=(other,))))
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope"), operation
        assert f"`{operation.scope}`" in answer.json()["detail"]


async def test_health_wants_no_key(client: httpx.AsyncClient) -> None:
    for path in OPEN:
        assert (await client.get(path)).status_code in (200, 503)


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer x", "Basic bHRoOng=", "Bearer lth_short_secret", "Bearer lth_" + "a" * 12 + "_" + "b" * 43],
    ids=["empty", "short", "basic", "malformed", "unknown"],
)
async def test_what_is_no_live_key_opens_nothing(client: httpx.AsyncClient, value: str) -> None:
    answer = await client.get("/v1/models", headers={"Authorization": value})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_with_a_wrong_secret_opens_nothing(client: httpx.AsyncClient, make_key: MakeKey) -> None:
    key = make_key()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert (await client.get("/v1/models", headers=bearer(wrong))).status_code == 401
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200


async def test_a_revoked_key_opens_nothing(client: httpx.AsyncClient, make_key: MakeKey, database: Database) -> None:
    key = make_key()
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    with database.session_scope() as session:
        assert revoke_key(session, key.split("_")[1])
        assert not revoke_key(session, key.split("_")[1])
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 401


async def test_an_expired_key_opens_nothing(client: httpx.AsyncClient, make_key: MakeKey, database: Database) -> None:
    key = make_key(lifetime=timedelta(hours=1))
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    with database.session_scope() as session:
        session.execute(update(ApiKeyRow).values(expires_at=ApiKeyRow.expires_at - timedelta(hours=2)))
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 401


async def test_the_use_of_a_key_is_noted(client: httpx.AsyncClient, make_key: MakeKey, database: Database) -> None:
    await client.get("/v1/models", headers=bearer(make_key()))
    with database.session_scope() as session:
        [(row, workspace)] = list_keys(session, "default")
    assert workspace == "default"
    assert row.last_used_at is not None


def test_only_a_keyed_hash_of_the_secret_is_kept(make_key: MakeKey, database: Database) -> None:
    parts = split(make_key())
    assert parts is not None
    with database.session_scope() as session:
        [(row, _)] = list_keys(session, None)
    assert row.prefix == parts[0]
    assert parts[1].encode() not in row.secret_hash
    assert len(row.secret_hash) == 32
    assert row.secret_hash != hash_secret(parts[1], "another secret key of 32 characters....")


def test_keys_differ() -> None:
    assert len({generate("k").text for _ in range(100)}) == 100


async def test_another_workspaces_things_do_not_exist(
    app: FastAPI, client: httpx.AsyncClient, writer: Headers, stranger: Headers, database: Database
) -> None:
    model, dataset = await upload(client, writer, "models"), await upload(client, writer, "datasets")
    settle(database, "models", model["id"])
    settle(database, "datasets", dataset["id"])
    ids: dict[str, Any] = {
        "model_id": model["id"],
        "dataset_id": dataset["id"],
        "job_id": add_job(database),
        "artifact_id": uuid7(),
    }
    for operation in operations(app):
        if "{" not in operation.path:
            continue
        address = operation.path.format(**ids)
        # A body that fits: what is wrong with one is said before anything is looked for.
        body = {"artifact_id": str(ids["artifact_id"])} if operation.method == "POST" else None
        answer = await client.request(operation.method, address, headers=stranger, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), operation
    assert (await client.get("/v1/models", headers=stranger)).json()["items"] == []
    assert (await client.get(f"/v1/models/{model['id']}", headers=writer)).status_code == 200
