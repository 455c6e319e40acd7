"""What reading jobs costs Postgres, by the plans that it carries out."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import Engine, event, insert, text
from uuid_utils.compat import uuid7

from app.access.service import ensure_workspace
from app.database import Database
from app.jobs import lease
from app.jobs.service import list_jobs
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow
from tests.app.jobs.factories import add_job


def rows_read(plan: dict[str, Any], table: str) -> float:
    """Rows of a table that the plan went through, those that it passed over among them."""
    own = 0.0
    if plan.get("Relation Name") == table:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(rows_read(part, table) for part in plan.get("Plans", []))


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Those that are carried out within, with their parameters."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_old_idempotency_keys_are_found_without_reading_the_others(database: Database) -> None:
    """Every second, in each housekeeper."""
    with database.session_scope() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))  # which a table as small as this one would be read by
        with statements(database.engine) as asked:
            lease.forget_idempotency_keys(session, 60.0)
        [(statement, parameters)] = asked
        plan = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
        assert "ix_idempotency_keys_created_at" in " ".join(plan)


async def test_a_page_of_failed_jobs_reads_no_others(app: FastAPI, database: Database, workspace_id: UUID) -> None:
    failed = add_job(database, state=JobState.FAILED)
    with database.session_scope() as session:
        known = {"workspace_id": workspace_id, "kind": JobKind.OPTIMIZE, "queue": "cpu", "state": JobState.SUCCEEDED}
        known |= {"budget_seconds": 60.0, "max_attempts": 3, "expires_at": datetime.now(UTC)}
        session.execute(insert(JobRow), [known | {"id": uuid7()} for _ in range(200)])
        session.execute(text("ANALYZE jobs"))  # without, other indexes promise the same
    async with app.state.database.session_scope() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))  # which so few would be read by
        with statements(app.state.database.engine.sync_engine) as asked:
            asking: dict[str, Any] = {"model_id": None, "kind": JobKind.OPTIMIZE, "limit": 50, "cursor": None}
            page, _ = await list_jobs(session, workspace_id, state=JobState.FAILED, **asking)
        assert [job.id for job in page] == [failed]
        connection = await session.connection()
        read = 0.0
        for statement, parameters in asked:
            explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            read += rows_read(explained.scalar_one()[0]["Plan"], "jobs")
    assert read == 2  # for its size, and for itself


async def test_a_page_of_queued_jobs_reads_what_waits_once(
    app: FastAPI, database: Database, workspace_id: UUID
) -> None:
    with database.session_scope() as session:
        elsewhere = ensure_workspace(session, "elsewhere")
    for _ in range(40):
        add_job(database)
        add_job(database, workspace_id=elsewhere)
    async with app.state.database.session_scope() as session:
        with statements(app.state.database.engine.sync_engine) as asked:
            page, _ = await list_jobs(
                session,
                workspace_id,
                state=JobState.QUEUED,
                model_id=None,
                kind=JobKind.OPTIMIZE,
                limit=40,
                cursor=None,
            )
        assert [job.queue_position for job in page] == [2 * place for place in reversed(range(40))]
        connection = await session.connection()
        read = 0.0
        for statement, parameters in asked:
            explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            read += rows_read(explained.scalar_one()[0]["Plan"], "jobs")
    # Sizes, page and places: each reads its rows, and a plan may read those of the other workspace beside them.
    assert read <= 4 * 80
