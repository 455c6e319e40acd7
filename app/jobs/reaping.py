"""Taking back jobs whose holder renews their lease no more."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import Fault, OurFault
from app.jobs.lease import append_events, back_in_queue, backoff, close_job, ending, state_event
from app.jobs.states import TERMINAL, JobKind, JobState
from app.jobs.tables import JobRow

WORKER_LOST = Fault(
    code=OurFault.WORKER_LOST,
    title="The worker was lost",
    detail="The worker that ran the job stopped answering, on every attempt.",
    remedy="Look at the worker's log; submit the job again when the cause is gone.",
)


@dataclass(frozen=True)
class Reaped:
    """An attempt whose lease was over, and what its job came to."""

    job_id: UUID
    attempt: int
    request_id: str | None
    state: JobState


def reap(session: Session, backoff_seconds: float, *, queue_ttl_seconds: float, limit: int = 100) -> list[Reaped]:
    """Take back jobs whose lease is over: cancelled where that was asked, queued again, or failed `worker_lost`.

    Those in the queue may wait for a worker as `requeue` has it.
    """
    rows = session.execute(
        select(
            JobRow.id,
            JobRow.kind,
            JobRow.attempt,
            JobRow.max_attempts,
            JobRow.cancel_requested_at,
            JobRow.request_id,
        )
        .where(JobRow.state == JobState.RUNNING, JobRow.lease_expires_at < func.clock_timestamp())
        .order_by(JobRow.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    reaped = []
    for row in rows:
        error = None
        if row.cancel_requested_at is not None:
            state, values = JobState.CANCELLED, ending(JobState.CANCELLED)
        elif row.attempt < row.max_attempts:
            state = JobState.QUEUED
            values = back_in_queue(backoff(backoff_seconds, row.attempt), queue_ttl_seconds)
        else:
            state, error = JobState.FAILED, WORKER_LOST
            values = ending(state) | {"error": error.model_dump()}
        session.execute(update(JobRow).where(JobRow.id == row.id).values(values))
        if state in TERMINAL:
            close_job(session, row.id, JobKind(row.kind), state_event(state, error=error))
        else:
            append_events(session, row.id, [state_event(state, reason="lease_over")])
        reaped.append(Reaped(row.id, row.attempt, row.request_id, state))
    return reaped
