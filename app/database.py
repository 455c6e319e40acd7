"""The database: engines, and the one place that commits.

The API is asynchronous and the worker is not, so there are two faces of the same thing, over one driver (psycopg 3).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from app.config import Settings

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


# Of whoever somebody waits for.
STATEMENT_SECONDS = 30.0
# A peer that vanished must not hold a heartbeat, a request or a round of housekeeping: the kernel notices within a
# quarter of a minute, and the server lets nobody keep locks in an abandoned transaction.
LASTING = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    # Of a standby nothing can be had that is not then refused; and whatever DATABASE_URL says of it, readers pass this.
    "target_session_attrs": "primary",
}
LIMITS = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"


# Whom row security holds: it sees and changes rows of the workspace that the setting names, and without one none at
# all. Whoever owns the tables is not held, and looks after all workspaces.
REQUEST_ROLE = "lathe_request"
WORKSPACE_SETTING = "lathe.workspace_id"

# What a statement raises while the database is down, restarting or overrun: worth another try.
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)


def _connect_args(more_options: str = "", *, statement_seconds: float = STATEMENT_SECONDS) -> dict[str, Any]:
    """What psycopg connects with: a connection that ends by itself what nobody waits for."""
    return LASTING | {"options": f"-c statement_timeout={statement_seconds:g}s {LIMITS}{more_options}"}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class AsyncDatabase:
    """The API's face where it asks for nobody: it sees every workspace. One `session_scope` is one transaction.

    With `pings` a connection is tried before it is used again, which is a round trip more.
    """

    def __init__(self, settings: Settings, *, pings: bool = False) -> None:
        self.engine = self._make_engine(settings, _connect_args(), pings)
        _leave_what_takes_no_writes(self.engine.sync_engine)
        # Connections that are never anything but the role of requests, and never write.
        readers = _connect_args(f" -c role={REQUEST_ROLE} -c default_transaction_read_only=on")
        self._reading_engine = self._make_engine(settings, readers, pings)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._readers = async_sessionmaker(self._reading_engine.execution_options(isolation_level="AUTOCOMMIT"))

    @asynccontextmanager
    async def session_scope(self) -> AsyncIterator[AsyncSession]:
        """A session whose work is committed when the block ends, and rolled back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    def of_workspace(self, workspace_id: UUID) -> "WorkspaceDatabase":
        """What a request of this workspace is given."""
        return WorkspaceDatabase(self._sessions, self._readers, workspace_id)

    async def dispose(self) -> None:
        await self.engine.dispose()
        await self._reading_engine.dispose()

    @staticmethod
    def _make_engine(settings: Settings, connect_args: dict[str, Any], pings: bool) -> AsyncEngine:
        return create_async_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.database.pool_size,
            max_overflow=settings.database.max_overflow,
            pool_timeout=settings.database.pool_timeout_seconds,
            pool_pre_ping=pings,
            connect_args=connect_args,
            hide_parameters=True,  # errors are logged, and parameters are users' data
        )


class WorkspaceDatabase:
    """The API's face for a caller: rows of one workspace, whatever a query forgets to ask for."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], readers: async_sessionmaker[AsyncSession], workspace_id: UUID
    ) -> None:
        self._sessions = sessions
        self._readers = readers
        self._workspace_id = workspace_id

    @asynccontextmanager
    async def session_scope(self) -> AsyncIterator[AsyncSession]:
        """A session whose work is committed when the block ends, and rolled back when it raises.

        Role and workspace are taken on by the transaction, and end with it.
        """
        async with self._sessions() as session, session.begin():
            identity = f"SET LOCAL ROLE {REQUEST_ROLE}; SET LOCAL {WORKSPACE_SETTING} = '{self._workspace_id}'"
            await (await session.connection()).exec_driver_sql(identity)
            yield session

    @asynccontextmanager
    async def reading_scope(self) -> AsyncIterator[AsyncSession]:
        """A session for reads that need no transaction: a statement is one round trip instead of four.

        One more where the connection served another workspace before.
        """
        async with self._readers() as session:
            connection = await session.connection()
            kept: dict[str, object] = connection.sync_connection.info  # type: ignore[union-attr] # it has just begun
            if kept.get(WORKSPACE_SETTING) != self._workspace_id:
                kept.pop(WORKSPACE_SETTING, None)  # unknown, should this be interrupted
                await connection.exec_driver_sql(f"SET {WORKSPACE_SETTING} = '{self._workspace_id}'")
                kept[WORKSPACE_SETTING] = self._workspace_id
            yield session


class Database:
    """The worker's and the command line's face. One `session_scope` is one transaction.

    A statement that takes longer than `statement_seconds` fails.
    """

    def __init__(self, settings: Settings, *, statement_seconds: float = STATEMENT_SECONDS) -> None:
        self.engine = create_engine(
            settings.database_url.get_secret_value(),
            pool_size=settings.database.pool_size,
            max_overflow=settings.database.max_overflow,
            pool_timeout=settings.database.pool_timeout_seconds,
            pool_pre_ping=True,
            connect_args=_connect_args(statement_seconds=statement_seconds),
            hide_parameters=True,
        )
        _leave_what_takes_no_writes(self.engine)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session_scope(self) -> Iterator[Session]:
        """A session whose work is committed when the block ends, and rolled back when it raises."""
        with self._sessions() as session, session.begin():
            yield session

    def dispose(self) -> None:
        self.engine.dispose()


def _leave_what_takes_no_writes(engine: Engine) -> None:
    """Have a refused write count as a database that is away: its connection is closed, those beside it begun anew.

    A server that takes no more writes keeps its connections, and would be asked again and again.
    """

    def leave(context: ExceptionContext) -> None:
        refusal = context.original_exception
        if isinstance(refusal, ReadOnlySqlTransaction):
            context.is_disconnect = True
            raise OperationalError(context.statement, None, refusal, hide_parameters=True)

    event.listen(engine, "handle_error", leave)
