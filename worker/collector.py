"""Lets go of what is kept for a while, and removes bytes that nothing refers to. Any number may do so.

In a thread of its own: storage that does not answer holds up nobody's job.
"""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.blobs.collection import GarbageCollector
from app.blobs.retention import forget_inspections, let_go_of_artifacts, let_go_of_datasets, let_go_of_models
from app.config import Settings
from app.database import Database
from app.errors import LatheError
from app.jobs import search_cache
from app.storage import Storage
from app.uploads.expiry import delete_expired
from app.webhooks import outbox
from worker.storage_mark import StorageMark

COLLECT_SECONDS = 300.0
# What looks through millions of rows may take its time: it holds up nobody.
STATEMENT_SECONDS = 600.0
log = structlog.get_logger()


class Collector:
    """One round after another; a step that fails is logged, the others are taken all the same."""

    def __init__(self, settings: Settings, database: Database, storage: Storage) -> None:
        self._settings, self._database, self._storage = settings, database, storage
        self._mark = StorageMark(database, storage)
        self._garbage = GarbageCollector(database, storage, settings.jobs.garbage_grace_seconds)

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set."""
        while not stop.wait(COLLECT_SECONDS):
            self.collect()

    def collect(self) -> None:
        """One round; none where storage is not known to be this database's: each step ends with bytes that go."""
        if not self._mark.is_ours():
            return
        for step in (
            self._forget,
            self._end_uploads,
            self._let_go_of_models,
            self._let_go_of_datasets,
            self._let_go_of_artifacts,
            self._forget_inspections,
            self._remove_garbage,
        ):
            try:
                step()
            except (SQLAlchemyError, LatheError) as error:
                log.warning("collecting_failed", step=step.__name__.strip("_"), error=str(error))
            except Exception:
                log.exception("collecting_broke", step=step.__name__.strip("_"))

    def _forget(self) -> None:
        jobs = self._settings.jobs
        with self._database.session_scope() as session:
            search_cache.forget_old(session, jobs.search_cache_seconds, jobs.search_cache_bytes)
            given_up = outbox.give_up_old(session)
            outbox.forget_old(session, self._settings.webhooks.keep_seconds)
        if given_up:
            log.warning("webhooks_given_up", messages=given_up)

    def _end_uploads(self) -> None:
        delete_expired(self._database, self._storage)

    def _let_go_of_models(self) -> None:
        _tell(models=let_go_of_models(self._database, self._settings.retention))

    def _let_go_of_datasets(self) -> None:
        _tell(datasets=let_go_of_datasets(self._database, self._settings.retention))

    def _let_go_of_artifacts(self) -> None:
        _tell(artifacts=let_go_of_artifacts(self._database, self._settings.retention))

    def _forget_inspections(self) -> None:
        if forgotten := forget_inspections(self._database):
            log.info("inspections_forgotten", uploads=forgotten)

    def _remove_garbage(self) -> None:
        removed = self._garbage.collect()
        if removed:
            log.info("garbage_collected", files=removed)


def _tell(**expired: int) -> None:
    if any(expired.values()):
        log.info("expired", **expired)
