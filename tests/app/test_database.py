"""Databases that are reached and take no writes."""

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text

from app.access.keys import SCOPES
from app.access.service import ensure_workspace
from app.config import Settings
from app.database import DATABASE_AWAY, AsyncDatabase, Database
from app.main import lifespan_of
from tests.conftest import MakeKey, bearer
from worker.collector import STATEMENT_SECONDS

WEBHOOK = {"url": "https://93.184.215.14/hook"}


@pytest.fixture
def take_writes(settings: Settings, database: Database) -> Iterator[Callable[[], None]]:
    """Whoever connects from now on can only read, until this is called."""
    url = make_url(settings.database_url.get_secret_value())
    options = {"options": "-c default_transaction_read_only=off"}
    server = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=options)

    def alter(change: str) -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {url.database} {change}"))

    def reset() -> None:
        alter("RESET default_transaction_read_only")

    alter("SET default_transaction_read_only = on")
    yield reset
    reset()
    server.dispose()


def test_a_connection_that_takes_no_writes_is_as_good_as_none_and_not_kept(
    settings: Settings, take_writes: Callable[[], None]
) -> None:
    own = Database(settings)
    with pytest.raises(DATABASE_AWAY), own.session_scope() as session:
        ensure_workspace(session, "default")
    take_writes()
    with own.session_scope() as session:
        ensure_workspace(session, "default")
    own.dispose()


def test_a_statement_may_take_as_long_as_who_makes_it_says(settings: Settings, database: Database) -> None:
    unhurried = Database(settings, statement_seconds=STATEMENT_SECONDS)
    with unhurried.session_scope() as collecting, database.session_scope() as serving:
        shown = [session.scalar(text("SHOW statement_timeout")) for session in (collecting, serving)]
    unhurried.dispose()
    assert shown == ["10min", "30s"]


@pytest.fixture
async def own_client(
    routed: FastAPI, settings: Settings, take_writes: Callable[[], None]
) -> AsyncIterator[httpx.AsyncClient]:
    """Of an application whose connections are all made when nothing can be written, and that nobody uses after it."""
    async with lifespan_of(settings)(routed):
        transport = httpx.ASGITransport(routed)
        async with httpx.AsyncClient(transport=transport, base_url="http://lathe") as client:
            yield client


async def test_the_api_is_not_ready_and_answers_503_until_writes_are_taken(
    make_key: MakeKey, take_writes: Callable[[], None], own_client: httpx.AsyncClient
) -> None:
    client, headers = own_client, bearer(make_key(scopes=SCOPES))

    async def readiness() -> str:
        return str((await client.get("/readyz")).json()["components"]["postgres"]["detail"])

    async def made() -> int:
        return (await client.post("/v1/webhooks", json=WEBHOOK, headers=headers)).status_code

    assert (await readiness(), await made(), await readiness()) == ("takes no writes", 503, "takes no writes")
    take_writes()
    # Without a write in between: an API that is not ready is sent none.
    assert (await readiness(), await made()) == ("answers", 201)


async def test_a_database_url_that_asks_for_a_writing_server_serves_reads_too(
    settings: Settings, database: Database
) -> None:
    url = make_url(settings.database_url.get_secret_value()).update_query_dict({"target_session_attrs": "read-write"})
    text_of_url = SecretStr(url.render_as_string(hide_password=False))
    own = AsyncDatabase(settings.model_copy(update={"database_url": text_of_url}))
    async with own.of_workspace(uuid4()).reading_scope() as session:
        assert (await session.execute(text("SHOW transaction_read_only"))).scalar_one() == "on"
    await own.dispose()
