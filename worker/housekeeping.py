"""Publishes unpublished jobs, takes back dead leases, expires them; in threads of their own it collects garbage and
sends webhooks. Any number may run.
"""

import signal
import threading
from datetime import timedelta
from uuid import UUID

import structlog
from kombu.exceptions import OperationalError
from sqlalchemy import delete, func
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings, get_settings
from app.database import Database
from app.health.announcing import announce
from app.health.tables import WorkerRow
from app.jobs import lease, reaping
from app.logs import configure_logs
from app.queue import Queue
from app.storage import Storage
from worker.collector import STATEMENT_SECONDS, Collector
from worker.courier import Courier

SILENT_WORKER = timedelta(minutes=2)
SPARE_MESSAGES = 100
# A collector that storage keeps waiting is not waited for: whatever it was at, another takes up.
STOPPING_SECONDS = 5.0
log = structlog.get_logger()


class Housekeeper:
    """One round after another; a round that fails is logged, and the next one tries again."""

    def __init__(self, settings: Settings, database: Database, queue: Queue) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set."""
        while not stop.wait(self._settings.jobs.housekeeping_seconds):
            try:
                self.tidy()
            except SQLAlchemyError as error:
                log.warning("round_failed", error=str(error))
            except Exception:
                log.exception("round_broke")

    def tidy(self) -> None:
        """One round: take back, expire, publish, forget silent workers, and tell that somebody does so."""
        jobs = self._settings.jobs
        with self._database.session_scope() as session:
            for lost in reaping.reap(session, jobs.backoff_seconds, queue_ttl_seconds=jobs.queue_ttl_seconds):
                ids = {"request_id": lost.request_id, "job_id": str(lost.job_id), "attempt": lost.attempt}
                log.warning("lease_over", **ids, now=lost.state.value)
            for job_id in lease.expire(session):
                log.warning("job_expired", job_id=str(job_id))
            lease.forget_idempotency_keys(session, jobs.idempotency_seconds)
            session.execute(delete(WorkerRow).where(WorkerRow.seen_at < func.now() - SILENT_WORKER))
            announce(session, queues=[])
        with self._database.session_scope() as session:
            waiting = lease.take_unpublished(session, jobs.republish_seconds, self._settings.limits.running_jobs)
            queued = lease.count_queued(session)
        try:
            self._publish(waiting, queued)
        except OperationalError as error:
            # The broker is down: what was not woken comes again after `republish_seconds`.
            log.warning("publishing_failed", error=str(error))

    def _publish(self, waiting: list[tuple[UUID, str, int]], queued: dict[str, int]) -> None:
        """Wake workers, but not for ever: messages that no worker takes would fill the broker.

        No more once one was not delivered: each would wait as long for a broker that has fallen silent. Raises
        OperationalError where it says nothing from the first.
        """
        names = {queue for _, queue, _ in waiting}
        crowded = {name for name in names if self._queue.depth(name) >= queued.get(name, 0) + SPARE_MESSAGES}
        for job_id, queue, priority in waiting:
            if queue not in crowded and not self._queue.wake(job_id, queue, priority):
                return


def main() -> None:
    settings = get_settings()
    configure_logs(as_json=settings.log_json)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database, queue = Database(settings), Queue(settings)
    unhurried = Database(settings, statement_seconds=STATEMENT_SECONDS)
    courier = threading.Thread(target=Courier(settings, database).run, args=[stop], name="lathe-courier", daemon=True)
    collector = threading.Thread(
        target=Collector(settings, unhurried, Storage(settings)).run, args=[stop], name="lathe-collector", daemon=True
    )
    courier.start()
    collector.start()
    Housekeeper(settings, database, queue).run(stop)
    courier.join()
    collector.join(STOPPING_SECONDS)
    queue.close()
    unhurried.dispose()
    database.dispose()


if __name__ == "__main__":
    main()
