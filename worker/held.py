"""A claim, and what may be written under it: each thing in one transaction, or not at all.

A job that meets a shortage waits, longer each time: most are over in seconds, and a full disk may stay full for hours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import stamina
import structlog
from sqlalchemy.orm import Session

from app.config import JobSettings
from app.database import DATABASE_AWAY, Database
from app.errors import Fault
from app.jobs import lease
from app.jobs.lease import Claim
from app.jobs.states import JobState
from worker.failures import JobFailed, UnreadableRequest

LONGEST_SHORTAGE_SECONDS = 60.0
# How often a job is run anew for nothing before that costs an attempt.
FREE_REPEATS = 5
RESULT_NOT_STORED = "result_not_stored"
log = structlog.get_logger()


class LeaseLost(Exception):
    """Somebody else holds the job, or may: nothing may be written."""


@dataclass(frozen=True)
class Held:
    """One claim of a supervisor's."""

    claim: Claim
    database: Database
    jobs: JobSettings

    def write(self, work: Callable[[Session], bool]) -> bool:
        """One transaction, tried until it happened or the lease is over. Whether it was ours to make."""
        for attempt in stamina.retry_context(
            on=DATABASE_AWAY, attempts=None, timeout=self.jobs.lease_seconds, wait_max=2.0
        ):
            with attempt:
                try:
                    with self.database.session_scope() as session:
                        if not work(session):
                            raise LeaseLost
                except LeaseLost:
                    return False
        return True

    def cancel(self) -> None:
        self.write(lambda session: lease.finish(session, self.claim, JobState.CANCELLED))

    def hand_back(self) -> None:
        """The worker stops: another goes on at once."""
        self.write(lambda session: self._requeue(session, wait_seconds=0, spend_attempt=False, reason="worker_stopped"))

    def fail(self, failure: JobFailed) -> None:
        """For good, or for another attempt where one may end otherwise."""
        claim, fault, memory = self.claim, failure.fault, failure.peak_memory_bytes
        if failure.passing:
            self.repeat(fault.detail, fault, memory)
        elif failure.retryable and claim.attempt < claim.max_attempts:
            wait = lease.backoff(self.jobs.backoff_seconds, claim.attempt)
            self.write(
                lambda session: self._requeue(session, wait_seconds=wait, spend_attempt=True, reason=fault.detail)
            )
            log.warning("attempt_failed", code=fault.code, detail=fault.detail, again_in_seconds=wait)
        else:
            self.write(
                lambda session: lease.finish(session, claim, JobState.FAILED, error=fault, peak_memory_bytes=memory),
            )
            log.warning("job_failed", code=fault.code, detail=fault.detail)

    def defer(self, error: BaseException | None) -> None:
        """Nothing is wrong with the job, and another worker may have what this one lacks.

        It has not run, and expires when it would have: what this worker lacks may be lacking for ever.
        """
        reason = f"The worker lacked {_lacked(error)} ({type(error).__name__})."

        def put_off(session: Session) -> bool:
            wait = self._wait(lease.count_requeues(session, self.claim, reason))
            return lease.requeue(
                session, self.claim, wait_seconds=wait, spend_attempt=False, reason=reason, queue_ttl_seconds=0.0
            )

        self.write(put_off)

    def repeat(self, reason: str, fault: Fault, peak_memory_bytes: int | None = None) -> None:
        """As `defer`, but what was lost is a whole run: after a few, each is an attempt, and they end in the fault."""
        claim = self.claim

        def hand_on(session: Session) -> bool:
            repeats = lease.count_requeues(session, claim, reason)
            spend = repeats >= FREE_REPEATS
            if spend and claim.attempt >= claim.max_attempts:
                return lease.finish(session, claim, JobState.FAILED, error=fault, peak_memory_bytes=peak_memory_bytes)
            return self._requeue(session, wait_seconds=self._wait(repeats), spend_attempt=spend, reason=reason)

        self.write(hand_on)
        log.warning("run_lost", reason=reason, code=fault.code)

    def _requeue(self, session: Session, *, wait_seconds: float, spend_attempt: bool, reason: str) -> bool:
        """Back, with time to wait for a worker as if it were submitted now: while it ran, it did not wait for one."""
        return lease.requeue(
            session,
            self.claim,
            wait_seconds=wait_seconds,
            spend_attempt=spend_attempt,
            reason=reason,
            queue_ttl_seconds=self.jobs.queue_ttl_seconds,
        )

    def _wait(self, earlier: int) -> float:
        """Seconds, of a job that met the same shortage so often before."""
        return min(LONGEST_SHORTAGE_SECONDS, lease.backoff(self.jobs.backoff_seconds, earlier + 1))


def _lacked(error: BaseException | None) -> str:
    if isinstance(error, UnreadableRequest):
        return "the version that reads the request"
    return "the database" if isinstance(error, DATABASE_AWAY) else "storage"
