"""Migrating a database that others use meanwhile."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError

import migrations
from app.database import Database
from app.schema import migrate, revisions

# Tables with a trigger for deletions, which are bit 3 of its type.
GUARDED = text("SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 8 > 0")
LOCKS = "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database WHERE datname = current_database()"
WAITING = text(f"{LOCKS} AND relation = to_regclass('job_events') AND NOT granted")
MIGRATING = text(f"{LOCKS} AND locktype = 'advisory' AND granted")


def wait_for_the_migration(connection: Connection) -> None:
    deadline = time.monotonic() + 60
    while not connection.scalar(WAITING):
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def test_what_may_not_be_deleted_may_not_be_truncated(database: Database) -> None:
    """Neither by itself nor along with what it refers to, and wherever a trigger has a say in deletions."""
    with database.session_scope() as session:
        guarded = set(session.scalars(GUARDED))
    assert guarded == {"jobs", "promotions", "audit_log"}
    for table in (*guarded, "workspaces"):
        with pytest.raises(IntegrityError, match="may not be truncated"), database.session_scope() as session:
            session.execute(text(f"TRUNCATE {table} CASCADE"))


def test_a_migration_that_takes_long_holds_nothing_that_those_before_it_locked(own_database: str) -> None:
    """`jobs`, which one of them indexes and the next rewrites last: a heartbeat waits for ten seconds at most."""
    config = Config(attributes={"database_url": own_database})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    command.upgrade(config, "20261130_storage_mark")
    engine = create_engine(own_database)
    with ThreadPoolExecutor(1) as threads, engine.connect() as serving:
        with engine.begin() as holding:
            holding.execute(text("LOCK TABLE job_events"))
            migrating = threads.submit(migrate, own_database)
            wait_for_the_migration(serving)
            serving.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE NOWAIT"))
            assert serving.scalar(MIGRATING) == 1
            assert revisions(serving)[0] == "20261130_ended_jobs"
            serving.rollback()
        migrating.result(60)
        current, installed = revisions(serving)
    assert current == installed
    engine.dispose()
