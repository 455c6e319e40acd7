"""Keys: which open something, and what is kept of them."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import update

from app.access.keys import generate, hash_secret, split
from app.access.service import list_keys, revoke_key
from app.access.tables import ApiKeyRow
from app.database import Database
from tests.conftest import MakeKey, bearer

OPEN = ("/", "/healthz", "/readyz", "/metrics")


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
