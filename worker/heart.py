"""The heartbeat of one attempt: renews the lease, and brings back a cancel."""

import threading
import time
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.config import JobSettings
from app.database import Database
from app.jobs import lease
from app.jobs.lease import Claim
from worker.threads import thread_of_attempt

log = structlog.get_logger()


class Heart:
    """Beats in a thread of its own, so that a long copy cannot cost the lease.

    `lost` is set as soon as the lease is known or bound to be gone: from then on nothing may be written.
    """

    def __init__(self, database: Database, claim: Claim, settings: JobSettings, limit_seconds: float) -> None:
        self._database = database
        self._claim = claim
        self._settings = settings
        self._until = time.monotonic() + limit_seconds
        self._stop = threading.Event()
        self._thread = thread_of_attempt(self._beat, f"heart-{claim.job_id}")
        self.lost = threading.Event()
        self.cancelled = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _beat(self) -> None:
        renewed = time.monotonic()
        pause = self._settings.heartbeat_seconds
        while not self._stop.wait(pause):
            if time.monotonic() > self._until:
                # Whatever hangs here (a mount, a driver), another worker gets the job.
                log.error("attempt_hangs")
                self.lost.set()
                return
            try:
                with self._database.session_scope() as session:
                    cancel = lease.heartbeat(session, self._claim, self._settings.lease_seconds)
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", error=str(error))
                pause = min(1.0, self._settings.heartbeat_seconds)
                # By the local clock, counted from the last success: the database's lease cannot outlive this.
                if time.monotonic() - renewed >= self._settings.lease_seconds:
                    self.lost.set()
                    return
                continue
            renewed = time.monotonic()
            pause = self._settings.heartbeat_seconds
            if cancel is None:
                self.lost.set()
                return
            if cancel:
                self.cancelled.set()
