"""What tests stand on: a real Postgres built by the migrations, a real Redis, the API in this process or in its own.

DATABASE_URL and REDIS_URL choose the servers, else the embedded ones are started. On a Postgres that was given, the
tests make a database of their own and drop it in the end.
"""

import gc
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest
import stamina
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import create_engine, delete, make_url, text
from sqlalchemy.exc import DBAPIError

from app.access.service import create_key, ensure_workspace
from app.config import ApiSettings, Settings
from app.database import AsyncDatabase, Database
from app.main import create_app, lifespan_of
from app.schema import METADATA, migrate
from app.storage import Storage
from tests.app.documented import undocumented_headers
from tests.live_api import Descriptor, LiveApi, LiveApis, serve
from tests.spreading import Spread, put_in_order

if TYPE_CHECKING:
    from app.embedded import Stack

# Whole services that tests start time by fewer and shorter turns than they would for a user, who wants narrow
# intervals; and give a model one thread, as tests that run beside each other would else wait for each other's spinning
# threads.
TIMING_ROUNDS, ROUND_SECONDS = 3, 0.02
os.environ.setdefault("LATHE_RUNNER_TIMING_ROUNDS", str(TIMING_ROUNDS))
os.environ.setdefault("LATHE_RUNNER_ROUND_SECONDS", str(ROUND_SECONDS))
os.environ.setdefault("LATHE_RUNNER_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As runners have it: the processes that tests start are many.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
SECRET_KEY = "a secret key of the tests, 32 characters and more"
MakeKey = Callable[..., str]


@dataclass(frozen=True)
class Services:
    """Where the servers of this session are."""

    database_url: str
    redis_url: str


# What is imported to collect lives as long as the process: each search for garbage would go through all of it.
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_in_order(items)


def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:
    return Spread(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Postgres and Redis, as given or embedded."""
    if "DATABASE_URL" in os.environ and "REDIS_URL" in os.environ:
        yield Services(os.environ["DATABASE_URL"], os.environ["REDIS_URL"])
        return
    from app.embedded import EmbeddedServices  # noqa: PLC0415 - not installed where the servers are given

    with EmbeddedServices(tmp_path_factory.mktemp("services"), durable=False) as embedded:
        yield Services(embedded.environment["DATABASE_URL"], embedded.environment["REDIS_URL"])


@contextmanager
def database_of_its_own(servers: Services) -> Iterator[str]:
    """The URL of an empty database, which is there within."""
    url, name = make_url(servers.database_url), f"lathe_test_{uuid4().hex}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    # The server may be about its own work there, which nobody but its owner ends, for a moment.
    for attempt in stamina.retry_context(on=DBAPIError, attempts=None, timeout=20.0):
        with attempt, server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture(scope="session")
def services(servers: Services) -> Iterator[Services]:
    """The servers, with a database of this session's own, built by the migrations."""
    with database_of_its_own(servers) as url:
        migrate(url)
        yield Services(url, servers.redis_url)


@pytest.fixture
def own_database(servers: Services) -> Iterator[str]:
    """The URL of an empty database."""
    with database_of_its_own(servers) as url:
        yield url


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Stack"]:
    """The whole service, as `lathe serve` runs it, for tests that do it no harm."""
    from app.embedded import Stack  # noqa: PLC0415 - as above

    whole = Stack(tmp_path_factory.mktemp("stack") / "data", port=0)
    try:
        whole.start()
        whole.wait_ready()
        yield whole
    finally:
        whole.stop()


@pytest.fixture(scope="session")
def settings_of_session(services: Services) -> Settings:
    """Settings of what outlives a test: it stores nothing."""
    return Settings(
        database_url=SecretStr(services.database_url),
        redis_url=SecretStr(services.redis_url),
        storage_url="file:///nowhere",
        secret_key=SecretStr(SECRET_KEY),
        api=ApiSettings(min_free_bytes=0, key_cache_seconds=0, health_cache_seconds=0),
    )


@pytest.fixture
def settings(settings_of_session: Settings, tmp_path: Path) -> Settings:
    """Settings of one test, with a storage folder of its own."""
    own = {"storage_url": (tmp_path / "storage").as_uri(), "work_folder": tmp_path / "work"}
    return settings_of_session.model_copy(update=own, deep=True)


@pytest.fixture(scope="session")
def engine_of_session(settings_of_session: Settings) -> Iterator[Database]:
    database = Database(settings_of_session)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def emptying(engine_of_session: Database) -> str:
    """Statements that leave no row, ten times as fast as TRUNCATE, which makes every table's files anew.

    What may never be deleted is let go by triggers that its owner may switch off.
    """
    triggers = text("SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal")
    with engine_of_session.session_scope() as session:
        guarded = session.scalars(triggers).all()
    switches = [[f"ALTER TABLE {table} {switch} TRIGGER USER" for table in guarded] for switch in ("DISABLE", "ENABLE")]
    deletions = [str(delete(table)) for table in reversed(METADATA.sorted_tables)]
    steps = [switches[0], deletions, ["SET CONSTRAINTS ALL IMMEDIATE"], switches[1]]
    return "; ".join(["SET LOCAL lock_timeout = '10s'", *itertools.chain(*steps)])


@pytest.fixture
def database(engine_of_session: Database, emptying: str) -> Database:
    """The database, empty.

    Rows are seen across connections and processes here, so that no rollback could take them back.
    """
    with engine_of_session.session_scope() as session:
        session.connection().exec_driver_sql(emptying)
    return engine_of_session


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings)


@pytest.fixture
def make_key(database: Database) -> MakeKey:
    """`make_key(workspace="default", scopes=("read", "write"), lifetime=None)`: the text of a new API key."""

    def make(
        workspace: str = "default", scopes: tuple[str, ...] = ("read", "write"), lifetime: timedelta | None = None
    ) -> str:
        with database.session_scope() as session:
            return create_key(
                session,
                workspace=workspace,
                name="test",
                scopes=list(scopes),
                lifetime=lifetime,
                secret_key=SECRET_KEY,
            )[1]

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def reader(make_key: MakeKey) -> dict[str, str]:
    """Headers of a caller who may read in the workspace `default`."""
    return bearer(make_key(scopes=("read",)))


@pytest.fixture
def writer(make_key: MakeKey) -> dict[str, str]:
    """Headers of a caller who may read and write in the workspace `default`."""
    return bearer(make_key())


@pytest.fixture
def stranger(make_key: MakeKey) -> dict[str, str]:
    """Headers of a caller of another workspace."""
    return bearer(make_key(workspace="elsewhere"))


@pytest.fixture
def workspace_id(database: Database) -> UUID:
    """The workspace `default`."""
    with database.session_scope() as session:
        return ensure_workspace(session, "default")


@pytest.fixture(scope="session")
def routed(settings_of_session: Settings) -> FastAPI:
    """The application without what it holds: its routes are the same in every test, and take a while to build."""
    return create_app(settings_of_session)


class LastingDatabase(AsyncDatabase):
    """Connections and compiled statements are paid for once: the application of the next test goes on with them."""

    async def dispose(self) -> None:
        """The session does it."""


@pytest.fixture(scope="session")
async def lasting_database(settings_of_session: Settings) -> AsyncIterator[LastingDatabase]:
    """It lasts as long as its event loop, which is that of all tests; some of them end everybody's connections."""
    lasting = LastingDatabase(settings_of_session, pings=True)
    yield lasting
    await super(LastingDatabase, lasting).dispose()


@pytest.fixture
async def app(
    routed: FastAPI, settings: Settings, database: Database, lasting_database: LastingDatabase
) -> AsyncIterator[FastAPI]:
    """The application with everything it holds, on an empty database."""
    async with lifespan_of(settings, lambda _: lasting_database)(routed):
        yield routed


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The API in this process; what fails inside answers 500, as it would a real client.

    Every answer, of every test, bears only headers that the OpenAPI document has.
    """

    async def hold_against_the_document(answer: httpx.Response) -> None:
        assert undocumented_headers(app, answer) == set(), f"{answer.request.method} {answer.request.url}"

    hooks = {"response": [hold_against_the_document]}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://lathe", event_hooks=hooks) as client:
        yield client


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that is to run with `settings`."""
    return {
        **os.environ,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "STORAGE_URL": settings.storage_url,
        "LATHE_SECRET_KEY": SECRET_KEY,
        "LATHE_WORK_FOLDER": str(settings.work_folder),
        "LATHE_API_MIN_FREE_BYTES": "0",
        "LATHE_API_KEY_CACHE_SECONDS": "0",
        "LATHE_API_HEALTH_CACHE_SECONDS": "0",
    }


@pytest.fixture
def start_api(environment: dict[str, str], database: Database, tmp_path: Path) -> Iterator[Callable[..., LiveApi]]:
    """`start_api(**environment)`: the API under uvicorn; stopped when the test ends."""
    with LiveApis(environment, tmp_path / "storage") as apis:
        yield apis.start


@pytest.fixture
def live_api(start_api: Callable[..., LiveApi]) -> LiveApi:
    return start_api()


@pytest.fixture
def service_url(environment: dict[str, str], database: Database) -> Iterator[str]:
    """The API in a process of its own, on a port, for clients that know nothing of Unix sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = serve(environment, fd=Descriptor(listener.fileno()))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # who comes early waits in the queue of the port
        process.terminate()
        process.wait(timeout=10)
