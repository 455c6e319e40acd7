"""Row security: what serves a request of one workspace meets no row of another, whatever its query forgets.

The tables are those of the metadata: one that is new has to have a policy, or to be named here as nobody's.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    DateTime,
    Engine,
    Float,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    and_,
    create_engine,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import UpdateBase
from uuid_utils.compat import uuid7

import migrations
from app.access.service import ensure_workspace
from app.access.tables import ApiKeyRow, WorkspaceRow
from app.config import DatabaseSettings, Settings
from app.database import AsyncDatabase, Database, WorkspaceDatabase
from app.jobs.service import get_job
from app.jobs.tables import JobRow
from app.schema import METADATA, migrate
from tests.app.jobs.factories import add_job

OF_NOBODY = {"workers", "storage_mark"}
TABLES = [table for table in METADATA.sorted_tables if table.name not in OF_NOBODY]
# What a column must hold where that is not any value of its type.
WANTED = {"jobs.kind": "optimize", "artifacts.kind": "model", "resumable_uploads.kind": "model"}
VALUES: dict[Any, Callable[[], Any]] = {
    Uuid: uuid7,
    LargeBinary: lambda: uuid7().bytes * 2,
    Text: lambda: uuid7().hex,
    DateTime: lambda: datetime.now(UTC),
    JSONB: dict,
    ARRAY: list,
    Float: lambda: 1.0,
    Integer: lambda: 1,
}
REFUSED = "row-level security|permission denied|only ever added"
Row = dict[str, Any]
Rows = dict[str, Row]
"""One row of each table, by the table's name."""


def value_for(column: Column[Any], rows: Rows) -> Any:
    """Something that the column takes, of the same workspace as `rows`."""
    for key in column.foreign_keys:
        return rows[key.column.table.name][key.column.name]
    name = f"{column.table.name}.{column.name}"
    if name in WANTED:
        return WANTED[name]
    for kind, make in VALUES.items():
        if isinstance(column.type, kind):
            return make()
    return pytest.fail(f"this file has no value for {name}")


def values_for(table: Table, rows: Rows) -> Row:
    """A row that the table takes: what has to be given, and every reference."""
    needless = (
        column
        for column in table.c
        if column.nullable or column.default is not None or column.server_default is not None or column.identity
    )
    left_out = {column.name for column in needless if not column.foreign_keys}
    return {column.name: value_for(column, rows) for column in table.c if column.name not in left_out}


def fill(database: Database) -> Rows:
    """A new workspace with a row in every table."""
    rows: Rows = {}
    with database.session_scope() as session:
        for table in TABLES:
            made = session.execute(insert(table).values(values_for(table, rows)).returning(table)).one()
            rows[table.name] = dict(made._mapping)
    return rows


def owner_of(table: Table) -> Column[Any]:
    """What says whose a row is: a workspace, or a row that has one."""
    if table.name == "workspaces":
        return table.c.id
    if "workspace_id" in table.c:
        return table.c.workspace_id
    references = [column for column in table.c if column.foreign_keys]
    return references[0] if references else pytest.fail(f"whose are the rows of {table.name}?")


def that_row(table: Table, rows: Rows) -> ColumnElement[bool]:
    return and_(*(column == rows[table.name][column.name] for column in table.primary_key))


def contents(database: Database) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with database.session_scope() as session:
        return {
            table.name: sorted(session.scalars(text(f"SELECT {table.name}::text FROM {table.name}")))  # noqa: S608 - ours
            for table in TABLES
        }


@pytest.fixture
def mine(database: Database) -> Rows:
    return fill(database)


@pytest.fixture
def theirs(database: Database) -> Rows:
    return fill(database)


@pytest.fixture
def request_database(app: FastAPI, mine: Rows) -> WorkspaceDatabase:
    """What a route is given that serves the workspace of `mine`."""
    database: AsyncDatabase = app.state.database
    return database.of_workspace(mine["workspaces"]["id"])


async def changed(session: AsyncSession, statement: UpdateBase) -> int | None:
    """How many rows a statement changed; None where it was refused. Nothing of it remains."""
    attempt = await session.begin_nested()
    try:
        rows: int = (await session.execute(statement)).rowcount  # type: ignore[attr-defined] # a cursor's result
    except DBAPIError as error:
        assert re.search(REFUSED, str(error)), error
        return None
    finally:
        await attempt.rollback()
    return rows


async def test_a_query_without_where_finds_rows_of_one_workspace(
    request_database: WorkspaceDatabase, mine: Rows, theirs: Rows
) -> None:
    for scope in (request_database.reading_scope, request_database.session_scope):
        async with scope() as session:
            for table in TABLES:
                found = [tuple(row) for row in await session.execute(select(*table.primary_key))]
                assert found == [tuple(mine[table.name][column.name] for column in table.primary_key)], table.name
                sought = select(*table.primary_key).where(that_row(table, theirs))
                assert (await session.execute(sought)).first() is None, table.name


async def test_nothing_of_another_workspace_is_changed_taken_away_or_added(
    request_database: WorkspaceDatabase, database: Database, mine: Rows, theirs: Rows
) -> None:
    before = contents(database)
    async with request_database.session_scope() as session:
        for table in TABLES:
            owner = owner_of(table)
            untouched = {owner.name: owner}
            assert not await changed(session, update(table).values(untouched).where(that_row(table, theirs))), (
                table.name
            )
            assert not await changed(session, delete(table).where(that_row(table, theirs))), table.name
            stolen = {owner.name: theirs[table.name][owner.name]}
            assert await changed(session, update(table).values(stolen)) is None, f"{table.name}: given to them"
            added = values_for(table, theirs)
            assert await changed(session, insert(table).values(added)) is None, f"{table.name}: added to theirs"
    assert contents(database) == before


async def test_rows_of_its_own_it_may_change(request_database: WorkspaceDatabase, mine: Rows, theirs: Rows) -> None:
    """What makes the refusals say something: the same statements without a WHERE reach one row each."""
    async with request_database.session_scope() as session:
        for table in TABLES:
            if table.name not in ("api_keys", "audit_log", "promotions"):  # which nobody changes, or no request
                owner = owner_of(table)
                assert await changed(session, update(table).values({owner.name: owner})) == 1, table.name


async def test_without_a_workspace_it_finds_nothing(app: FastAPI, mine: Rows) -> None:
    async with app.state.database.session_scope() as session:
        await session.execute(text("SET LOCAL ROLE lathe_request"))
        for table in TABLES:
            assert (await session.execute(select(*table.primary_key))).first() is None, table.name


async def test_no_request_reads_what_proves_a_key(request_database: WorkspaceDatabase, theirs: Rows) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with request_database.reading_scope() as session:
            await session.execute(select(ApiKeyRow.secret_hash))


async def test_a_connection_keeps_nothing_of_whom_it_served(settings: Settings, mine: Rows, theirs: Rows) -> None:
    """Neither after an answer nor after a failure, on the one connection that there is."""
    alone = DatabaseSettings(pool_size=1, max_overflow=0, pool_timeout_seconds=1)
    whole = AsyncDatabase(settings.model_copy(update={"database": alone}))

    async def seen(database: AsyncDatabase | WorkspaceDatabase) -> set[Any]:
        async with database.session_scope() as session:
            return set(await session.scalars(select(WorkspaceRow.id)))

    ids = [rows["workspaces"]["id"] for rows in (mine, theirs)]
    for workspace_id in ids:
        of_workspace = whole.of_workspace(workspace_id)
        for scope in (of_workspace.reading_scope, of_workspace.session_scope):
            async with scope() as session:
                assert set(await session.scalars(select(WorkspaceRow.id))) == {workspace_id}
            assert await seen(whole) == set(ids)
            with pytest.raises(ProgrammingError):
                async with scope() as session:
                    await session.execute(text("SELECT nonsense"))
            assert await seen(whole) == set(ids)
            assert await seen(of_workspace) == {workspace_id}
    await whole.dispose()


async def test_a_reading_scope_writes_nothing(request_database: WorkspaceDatabase, mine: Rows) -> None:
    with pytest.raises(Exception, match="read-only transaction"):
        async with request_database.reading_scope() as session:
            await session.execute(update(JobRow).values(priority=2))


async def test_jobs_of_others_count_for_the_place_in_the_queue(app: FastAPI, database: Database) -> None:
    """The one thing that it learns of other workspaces: where their jobs stand."""
    with database.session_scope() as session:
        here, elsewhere = (ensure_workspace(session, name) for name in ("here", "elsewhere"))
    for _ in range(3):
        add_job(database, workspace_id=elsewhere)
    first, second = (add_job(database, workspace_id=here) for _ in range(2))
    async with app.state.database.of_workspace(here).reading_scope() as session:
        places = [(await get_job(session, here, job_id))[0].queue_position for job_id in (first, second)]
    assert places == [0, 2]


def protected(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT relname FROM pg_class WHERE relrowsecurity")))


def test_the_migration_can_be_taken_back_and_repeated(own_database: str) -> None:
    migrate(own_database)
    engine = create_engine(own_database)
    names = {table.name for table in TABLES}
    assert protected(engine) == names
    config = Config(attributes={"database_url": own_database})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    command.downgrade(config, "20261129_retention")
    assert protected(engine) == set()
    migrate(own_database)
    assert protected(engine) == names
    engine.dispose()
