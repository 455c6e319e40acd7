"""The SQL that fences: who holds a job may change it, and nobody else."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, text
from uuid_utils.compat import uuid7

from app.database import Database
from app.errors import Fault
from app.jobs import lease, reaping
from app.jobs.lease import Claim, Progress
from app.jobs.states import JobState
from app.jobs.tables import JobEventRow
from tests.app.jobs.factories import add_job, read_job

FAULT = Fault(code="bad_model", title="Bad", detail="The model is bad.")


def take(database: Database, job_id: UUID, lease_seconds: float = 45.0) -> Claim | None:
    with database.session_scope() as session:
        return lease.claim(session, job_id, "test", lease_seconds)


def reap(database: Database) -> list[tuple[UUID, JobState]]:
    with database.session_scope() as session:
        return [(lost.job_id, lost.state) for lost in reaping.reap(session, 0.0, queue_ttl_seconds=0.0)]


def events_of(database: Database, job_id: UUID) -> list[tuple[str, str | None]]:
    with database.session_scope() as session:
        rows = session.scalars(select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.id))
        return [(row.type, row.data.get("state")) for row in rows]


def test_one_of_many_claims_wins(database: Database) -> None:
    job_id = add_job(database)
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: take(database, job_id), range(32)))
    winners = [each for each in claims if each is not None]
    assert [(each.fence, each.attempt) for each in winners] == [(1, 1)]


@pytest.mark.parametrize(
    "column",
    ["due_at = now() + interval '1 hour'", "expires_at = now() - interval '1 second'", "state = 'cancelled'"],
    ids=["not-due", "expired", "over"],
)
def test_what_cannot_run_is_not_claimed(database: Database, column: str) -> None:
    job_id = add_job(database)
    with database.session_scope() as session:
        session.execute(text(f"UPDATE jobs SET {column} WHERE id = :id"), {"id": job_id})  # noqa: S608 - a constant
    assert take(database, job_id) is None


@pytest.mark.parametrize(
    ("queue", "can_train", "taken"),
    [
        ("cpu-training", False, False),
        ("gpu-training", False, False),
        ("cpu-training", True, True),
        ("cpu", False, True),
        ("inspect", False, True),
    ],
)
def test_a_job_that_trains_is_claimed_by_who_can_train(
    database: Database, queue: str, can_train: bool, taken: bool
) -> None:
    job_id = add_job(database, queue=queue)
    with database.session_scope() as session:
        assert (lease.claim(session, job_id, "test", 45.0, can_train=can_train) is not None) is taken


def test_a_job_that_nobody_accepted_is_not_claimed(database: Database) -> None:
    assert take(database, uuid7()) is None


def test_a_stale_holder_changes_nothing(database: Database) -> None:
    job_id = add_job(database)
    stale = take(database, job_id, lease_seconds=0.0)
    assert stale is not None
    assert reap(database) == [(job_id, JobState.QUEUED)]
    fresh = take(database, job_id)
    assert fresh is not None and fresh.fence == stale.fence + 1 and fresh.attempt == 2

    before = read_job(database, job_id)
    with database.session_scope() as session:
        assert lease.heartbeat(session, stale, 45.0) is None
        assert not lease.record(session, stale, Progress(progress=0.9), [{"type": "log", "message": "stale"}])
        assert not lease.finish(session, stale, JobState.SUCCEEDED)
        assert not lease.requeue(
            session, stale, wait_seconds=0, spend_attempt=True, reason="stale", queue_ttl_seconds=0.0
        )
    after = read_job(database, job_id)
    assert (after.version, after.state, after.progress) == (before.version, JobState.RUNNING, 0.0)
    assert ("log", None) not in events_of(database, job_id)


def test_a_heartbeat_keeps_the_lease_and_brings_back_a_cancel(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id, lease_seconds=0.0)
    assert held is not None
    with database.session_scope() as session:
        assert lease.heartbeat(session, held, 45.0) is False
    assert reap(database) == []
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, held.workspace_id) is JobState.RUNNING
        assert lease.heartbeat(session, held, 45.0) is True


def test_a_queued_job_is_cancelled_at_once_and_only_by_its_workspace(database: Database) -> None:
    job_id = add_job(database)
    workspace_id = read_job(database, job_id).workspace_id
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, uuid7()) is None
        assert lease.cancel(session, job_id, workspace_id) is JobState.CANCELLED
        assert lease.cancel(session, job_id, workspace_id) is None
    assert read_job(database, job_id).finished_at is not None
    assert events_of(database, job_id) == [("state", "cancelled")]


def test_a_dead_lease_is_retried_and_at_last_failed(database: Database) -> None:
    job_id = add_job(database, max_attempts=2)
    for expected in (JobState.QUEUED, JobState.FAILED):
        assert take(database, job_id, lease_seconds=0.0) is not None
        assert reap(database) == [(job_id, expected)]
    row = read_job(database, job_id)
    assert row.error is not None and row.error["code"] == "worker_lost"
    assert [state for _, state in events_of(database, job_id)] == ["running", "queued", "running", "failed"]


def test_a_dead_lease_whose_job_was_cancelled_ends_cancelled(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id, lease_seconds=0.0)
    assert held is not None
    with database.session_scope() as session:
        lease.cancel(session, job_id, held.workspace_id)
    assert reap(database) == [(job_id, JobState.CANCELLED)]


def test_handing_back_spends_no_attempt_where_the_worker_was_stopped(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        assert lease.requeue(
            session, held, wait_seconds=0, spend_attempt=False, reason="worker_stopped", queue_ttl_seconds=0.0
        )
    row = read_job(database, job_id)
    assert (row.state, row.attempt, row.fence, row.published_at) == (JobState.QUEUED, 0, 1, None)


def test_a_job_that_is_handed_back_after_its_cancel_was_asked_for_ends_cancelled(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        lease.cancel(session, job_id, held.workspace_id)
        assert lease.requeue(session, held, wait_seconds=0, spend_attempt=True, reason="broke", queue_ttl_seconds=0.0)
    assert read_job(database, job_id).state == JobState.CANCELLED


def test_a_cancel_that_comes_while_a_job_is_handed_back_ends_it(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None

    def hand_back() -> bool:
        with database.session_scope() as session:
            return lease.requeue(
                session, held, wait_seconds=0, spend_attempt=False, reason="worker_stopped", queue_ttl_seconds=0.0
            )

    with ThreadPoolExecutor(1) as threads:
        with database.session_scope() as session:
            lease.cancel(session, job_id, held.workspace_id)
            handed_back = threads.submit(hand_back)
            while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                assert not handed_back.done(), "it did not wait for the cancel"
        assert handed_back.result()
    assert read_job(database, job_id).state == JobState.CANCELLED


def test_every_note_of_progress_brings_back_a_cancel(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        assert lease.record(session, held, Progress(progress=0.1), []) is False
        lease.cancel(session, job_id, held.workspace_id)
        assert lease.record(session, held, Progress(progress=0.2), []) is True


def test_a_retry_waits_for_its_backoff(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        lease.requeue(session, held, wait_seconds=3600, spend_attempt=True, reason="broke", queue_ttl_seconds=0.0)
        assert lease.take_unpublished(session, 30.0) == []
    assert take(database, job_id) is None


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2.0), (2, 4.0), (3, 8.0), (20, 300.0)])
def test_the_backoff_doubles_up_to_five_minutes(attempt: int, seconds: float) -> None:
    assert lease.backoff(2.0, attempt) == seconds


def test_dispatchers_share_the_queue_and_publish_once(database: Database) -> None:
    ids = {add_job(database) for _ in range(50)}

    def take_some(_: int) -> list[UUID]:
        with database.session_scope() as session:
            return [job_id for job_id, _, _ in lease.take_unpublished(session, 30.0, limit=10)]

    with ThreadPoolExecutor(5) as threads:
        taken = [job_id for batch in threads.map(take_some, range(20)) for job_id in batch]
    assert sorted(taken) == sorted(ids)


def test_a_job_whose_message_was_lost_is_published_again(database: Database) -> None:
    job_id = add_job(database)
    with database.session_scope() as session:
        assert [each[0] for each in lease.take_unpublished(session, 30.0)] == [job_id]
    with database.session_scope() as session:
        assert lease.take_unpublished(session, 30.0) == []
    with database.session_scope() as session:
        assert [each[0] for each in lease.take_unpublished(session, 0.0)] == [job_id]


def test_urgent_jobs_are_published_first(database: Database) -> None:
    low, normal, high = (add_job(database, priority=priority) for priority in (2, 1, 0))
    with database.session_scope() as session:
        assert [each[0] for each in lease.take_unpublished(session, 30.0)] == [high, normal, low]


def test_a_backlog_that_is_due_again_keeps_no_job_from_being_published(database: Database) -> None:
    backlog = {add_job(database, published_at=datetime.now(UTC) - timedelta(hours=1)) for _ in range(12)}
    handed_back = add_job(database, queue="gpu", priority=2)
    rounds = []
    for _ in range(5):
        with database.session_scope() as session:
            rounds.append({each[0] for each in lease.take_unpublished(session, 30.0, limit=3)})
            session.execute(text("UPDATE jobs SET published_at = published_at - interval '10 s'"))
    assert handed_back in rounds[0], "it was published last, or never"
    assert set().union(*rounds) == backlog | {handed_back}, "what is due again took the place of what comes behind it"


def test_a_job_that_waited_too_long_expires(database: Database) -> None:
    job_id = add_job(database)
    with database.session_scope() as session:
        session.execute(text("UPDATE jobs SET expires_at = now() - interval '1 s'"))
    with database.session_scope() as session:
        assert lease.expire(session) == [job_id]
    assert read_job(database, job_id).state == JobState.EXPIRED


@pytest.mark.parametrize(("ttl_seconds", "left"), [(3600.0, 3600), (0.0, 0)])
def test_time_in_a_worker_is_not_time_in_the_queue(database: Database, ttl_seconds: float, left: int) -> None:
    handed_back, reaped = add_job(database), add_job(database)
    held = take(database, handed_back)
    assert held is not None
    assert take(database, reaped, lease_seconds=0.0) is not None
    with database.session_scope() as session:
        session.execute(text("UPDATE jobs SET expires_at = now() - interval '1 s'"))
    with database.session_scope() as session:
        assert lease.requeue(
            session, held, wait_seconds=0, spend_attempt=False, reason="stopped", queue_ttl_seconds=ttl_seconds
        )
        assert [lost.job_id for lost in reaping.reap(session, 0.0, queue_ttl_seconds=ttl_seconds)] == [reaped]
        remaining = session.scalars(text("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM jobs")).all()
        assert all(left - 60 < seconds <= left for seconds in remaining)
    with database.session_scope() as session:
        assert sorted(lease.expire(session)) == ([] if left else sorted([handed_back, reaped]))


def test_a_job_that_comes_back_early_keeps_the_time_that_it_had(database: Database) -> None:
    job_id = add_job(database)
    before = read_job(database, job_id).expires_at
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        lease.requeue(session, held, wait_seconds=0, spend_attempt=True, reason="broke", queue_ttl_seconds=1.0)
    assert read_job(database, job_id).expires_at == before


def test_a_failure_keeps_its_reason(database: Database) -> None:
    job_id = add_job(database)
    held = take(database, job_id)
    assert held is not None
    with database.session_scope() as session:
        assert lease.finish(session, held, JobState.FAILED, error=FAULT)
    row = read_job(database, job_id)
    assert row.error == FAULT.model_dump()
    assert (row.phase, row.eta_seconds, row.lease_expires_at) == (None, None, None)
