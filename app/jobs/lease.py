"""Claim, heartbeat, finish, requeue: the SQL that fences.

Every statement that a holder makes names its fence, so that one whose lease was taken away can change nothing. All
times are the database's. Each function is one statement, or belongs into one transaction of the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, literal, not_, select, update
from sqlalchemy.orm import Session

from app.errors import Fault, OurFault
from app.jobs import checkpoints, subjects
from app.jobs.states import JobKind, JobState
from app.jobs.tables import IdempotencyRow, JobEventRow, JobRow
from app.jobs.turns import held_back, takeable
from app.webhooks import outbox

NOT_INSPECTED = Fault(
    code=OurFault.INSPECTION_INTERRUPTED,
    title="The inspection did not happen",
    detail="The inspection was cancelled, or waited too long for a worker.",
    remedy="Upload the file again: that inspects it anew.",
)


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt at one job, for as long as the lease is renewed."""

    job_id: UUID
    fence: int
    workspace_id: UUID
    kind: JobKind
    model_id: UUID | None
    request: dict[str, Any] | None
    budget_seconds: float
    attempt: int
    max_attempts: int
    traceparent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Progress:
    """What a holder knows of its attempt."""

    phase: str | None = None
    progress: float | None = None
    eta_seconds: float | None = None


def _seconds(value: float) -> ColumnElement[timedelta]:
    return literal(timedelta(seconds=value))


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(JobRow.id == claim.job_id, JobRow.fence == claim.fence, JobRow.state == JobState.RUNNING)


def claim(
    session: Session,
    job_id: UUID,
    holder: str,
    lease_seconds: float,
    *,
    threads: int | None = None,
    can_train: bool = True,
) -> Claim | None:
    """Take a queued job that is `takeable`.

    None where there is nothing to take: a duplicate, somebody was faster, or it waits for a worker with more threads or
    one that can train.
    """
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, takeable(threads, can_train))
        .values(
            state=JobState.RUNNING,
            fence=JobRow.fence + 1,
            attempt=JobRow.attempt + 1,
            lease_holder=holder,
            lease_expires_at=func.clock_timestamp() + _seconds(lease_seconds),
            started_at=func.coalesce(JobRow.started_at, func.clock_timestamp()),
            phase="fetching",
            progress=0.0,
            eta_seconds=None,
        )
        .returning(
            JobRow.id,
            JobRow.fence,
            JobRow.workspace_id,
            JobRow.kind,
            JobRow.model_id,
            JobRow.request,
            JobRow.budget_seconds,
            JobRow.attempt,
            JobRow.max_attempts,
            JobRow.traceparent,
            JobRow.request_id,
        )
    ).one_or_none()
    if row is None:
        return None
    values = row._asdict()
    claimed = Claim(job_id=values.pop("id"), **(values | {"kind": JobKind(row.kind)}))
    append_events(session, job_id, [state_event(JobState.RUNNING, attempt=row.attempt)])
    return claimed


def heartbeat(session: Session, held: Claim, lease_seconds: float) -> bool | None:
    """Renew the lease. Whether a cancel was asked for; None where the lease is not ours any more."""
    row = session.execute(
        update(JobRow)
        .where(_held(held))
        .values(lease_expires_at=func.clock_timestamp() + _seconds(lease_seconds))
        .returning(JobRow.cancel_requested_at)
    ).one_or_none()
    return None if row is None else row.cancel_requested_at is not None


def record(session: Session, held: Claim, progress: Progress, events: Sequence[dict[str, Any]]) -> bool | None:
    """Write down how far the attempt is. Answers as `heartbeat` does; where that is None, nothing was written."""
    known = {name: value for name, value in vars(progress).items() if value is not None}
    row = session.execute(
        update(JobRow)
        .where(_held(held))
        .values(**known or {"phase": JobRow.phase})
        .returning(JobRow.cancel_requested_at)
    ).one_or_none()
    if row is None:
        return None
    append_events(session, held.job_id, events)
    return row.cancel_requested_at is not None


def finish(
    session: Session,
    held: Claim,
    state: JobState,
    *,
    error: Fault | None = None,
    verdict: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    runner_seconds: float | None = None,
    peak_memory_bytes: int | None = None,
) -> bool:
    """End the job. False where the lease is not ours any more: the caller must then roll everything back."""
    row = session.execute(
        update(JobRow)
        .where(_held(held))
        .values(
            ending(state)
            | {
                "progress": 1.0 if state is JobState.SUCCEEDED else JobRow.progress,
                "error": error.model_dump() if error else None,
                "verdict": verdict,
                "summary": summary,
                "peak_memory_bytes": peak_memory_bytes,
            }
        )
        .returning(JobRow.id)
    ).one_or_none()
    if row is None:
        return False
    close_job(session, held.job_id, held.kind, state_event(state, error=error, runner_seconds=runner_seconds))
    return True


def requeue(
    session: Session,
    held: Claim,
    *,
    wait_seconds: float,
    spend_attempt: bool,
    reason: str,
    queue_ttl_seconds: float,
) -> bool:
    """Hand the job back, or end it where its cancel was asked for. False where the lease is not ours any more.

    It may then wait for a worker for `queue_ttl_seconds`, or for what is left of the time that it had, if that is more.
    """
    back = back_in_queue(wait_seconds, queue_ttl_seconds)
    row = session.execute(
        update(JobRow)
        .where(_held(held), JobRow.cancel_requested_at.is_(None))
        .values(back | ({} if spend_attempt else {"attempt": JobRow.attempt - 1}))
        .returning(JobRow.id)
    ).one_or_none()
    if row is None:
        # Asked for before, or while this waited for the row. The other way round a cancel that comes between the two
        # statements would be forgotten by a job that goes back into the queue.
        return _end_cancelled(session, held)
    append_events(session, held.job_id, [state_event(JobState.QUEUED, reason=reason)])
    return True


def count_requeues(session: Session, held: Claim, reason: str) -> int:
    """How often the job was handed back for this reason."""
    events = select(func.count()).select_from(JobEventRow).where(JobEventRow.job_id == held.job_id)
    return session.scalar(events.where(JobEventRow.type == "state", JobEventRow.data["reason"].astext == reason)) or 0


def _end_cancelled(session: Session, held: Claim) -> bool:
    row = session.execute(
        update(JobRow)
        .where(_held(held), JobRow.cancel_requested_at.is_not(None))
        .values(ending(JobState.CANCELLED))
        .returning(JobRow.id)
    ).one_or_none()
    if row is not None:
        close_job(session, held.job_id, held.kind, state_event(JobState.CANCELLED))
    return row is not None


def expire(session: Session, limit: int = 100) -> list[UUID]:
    """End jobs that waited too long."""
    due = (
        select(JobRow.id)
        .where(JobRow.state == JobState.QUEUED, JobRow.expires_at <= func.clock_timestamp())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(JobRow).where(JobRow.id.in_(due)).values(ending(JobState.EXPIRED)).returning(JobRow.id, JobRow.kind)
    ).all()
    for row in rows:
        close_job(session, row.id, JobKind(row.kind), state_event(JobState.EXPIRED))
    return [row.id for row in rows]


def cancel(session: Session, job_id: UUID, workspace_id: UUID) -> JobState | None:
    """Cancel a queued job at once, or ask for it where the job runs. None where it is over, or not this workspace's."""
    row = session.execute(
        update(JobRow)
        .where(
            JobRow.id == job_id,
            JobRow.workspace_id == workspace_id,
            JobRow.state.in_([JobState.QUEUED, JobState.RUNNING]),
        )
        .values(cancel_requested_at=func.coalesce(JobRow.cancel_requested_at, func.clock_timestamp()))
        .returning(JobRow.state, JobRow.kind)
    ).one_or_none()
    if row is None:
        return None
    if row.state == JobState.RUNNING:
        return JobState.RUNNING
    session.execute(update(JobRow).where(JobRow.id == job_id).values(ending(JobState.CANCELLED)))
    close_job(session, job_id, JobKind(row.kind), state_event(JobState.CANCELLED))
    return JobState.CANCELLED


def forget_idempotency_keys(session: Session, age_seconds: float) -> None:
    """Let go of keys that nobody will send again."""
    # By the time at which the transaction began: no index is looked up by one that passes while it is read.
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < func.now() - _seconds(age_seconds)))


def count_queued(session: Session) -> dict[str, int]:
    """Queued jobs by queue."""
    rows = session.execute(
        select(JobRow.queue, func.count().label("jobs")).where(JobRow.state == JobState.QUEUED).group_by(JobRow.queue)
    )
    return {row.queue: row.jobs for row in rows}


def take_unpublished(
    session: Session, republish_seconds: float, default_running_jobs: int = 0, limit: int = 100
) -> list[tuple[UUID, str, int]]:
    """Queued jobs, due, not held back and not published lately, marked as published now: id, queue, priority.

    What was never published comes first, then what was published longest ago: by priority alone, a backlog of one queue
    that is due again before all of it was reached would take every round, and jobs of other queues would not be seen.
    """
    due = (
        select(JobRow.id)
        .where(
            JobRow.state == JobState.QUEUED,
            JobRow.due_at <= func.clock_timestamp(),
            (JobRow.published_at.is_(None))
            | (JobRow.published_at < func.clock_timestamp() - _seconds(republish_seconds)),
            not_(held_back(default_running_jobs)),
        )
        .order_by(JobRow.published_at.nulls_first(), JobRow.priority, JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(JobRow)
        .where(JobRow.id.in_(due))
        .values(published_at=func.clock_timestamp())
        .returning(JobRow.id, JobRow.queue, JobRow.priority)
    ).all()
    return sorted(((row.id, row.queue, row.priority) for row in rows), key=lambda job: (job[2], job[0]))


def backoff(seconds: float, attempt: int) -> float:
    """Wait after the `attempt`-th attempt, doubling each time, five minutes at most."""
    return min(seconds * 2.0 ** min(attempt - 1, 64), 300.0)  # how often a job met a shortage has no bound


def still_held(session: Session, held: Claim) -> bool:
    return bool(session.execute(select(exists().where(_held(held)))).scalar_one())


def state_event(state: JobState, **data: Any) -> dict[str, Any]:
    """The event of a job that came into `state`."""
    error = data.pop("error", None)
    known = {name: value for name, value in data.items() if value is not None}
    return {"type": "state", "state": state.value} | known | ({"error": error.model_dump()} if error else {})


def close_job(session: Session, job_id: UUID, kind: JobKind, event: dict[str, Any]) -> None:
    """What follows from a job's end: its last event, messages about it, no checkpoints, what becomes of its subject."""
    append_events(session, job_id, [event])
    outbox.announce(session, job_id)
    checkpoints.forget(session, job_id)
    if event["state"] != JobState.SUCCEEDED:
        fault = Fault.model_validate(event["error"]) if "error" in event else NOT_INSPECTED
        subjects.reject(session, job_id, kind, fault)


def ending(state: JobState) -> dict[str, Any]:
    """What the columns of a job that ends are set to."""
    return {
        "state": state,
        "finished_at": func.clock_timestamp(),
        "lease_holder": None,
        "lease_expires_at": None,
        "phase": None,
        "eta_seconds": None,
    }


def back_in_queue(wait_seconds: float, queue_ttl_seconds: float) -> dict[str, Any]:
    """What the columns of a job are set to that goes back into the queue, due after `wait_seconds`."""
    now = func.clock_timestamp()
    return {
        "state": JobState.QUEUED,
        "lease_holder": None,
        "lease_expires_at": None,
        "published_at": None,
        "phase": None,
        "progress": 0.0,
        "eta_seconds": None,
        "due_at": now + _seconds(wait_seconds),
        "expires_at": func.greatest(JobRow.expires_at, now + _seconds(queue_ttl_seconds)),
    }


def append_events(session: Session, job_id: UUID, events: Sequence[dict[str, Any]]) -> None:
    """Write down events of a job, in this order."""
    if events:
        rows = [
            {"job_id": job_id, "type": event["type"], "data": {k: v for k, v in event.items() if k != "type"}}
            for event in events
        ]
        session.execute(insert(JobEventRow), rows)
