"""Tells the database that this worker lives, what it can do and how it confines; and keeps its work folder clean."""

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.database import Database
from app.health.announcing import announce, name_of_this_process
from app.health.tables import WorkerRow
from worker.abilities import passes_served
from worker.cores import threads_for_models
from worker.engine.versions import versions
from worker.sandbox import confinement, memory_groups
from worker.work_folders import sweep

ANNOUNCE_SECONDS = 10.0
log = structlog.get_logger()


class Presence:
    """Announces the worker in a thread, and cleans in another, until `stop`."""

    def __init__(self, database: Database, settings: Settings, queues: list[str]) -> None:
        self._database = database
        self._settings = settings
        self._queues = queues
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=[self._announce], name="presence", daemon=True),
            # What a killed worker left may take longer to remove than a worker may be silent.
            threading.Thread(target=self._repeat, args=[self._sweep, memory_groups.sweep], name="sweeper", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)
        try:
            with self._database.session_scope() as session:
                session.execute(delete(WorkerRow).where(WorkerRow.name == name_of_this_process()))
        except SQLAlchemyError as error:
            log.warning("farewell_failed", error=str(error))

    def _repeat(self, *steps: Callable[[], object]) -> None:
        while True:
            for step in steps:
                try:
                    step()
                except (SQLAlchemyError, OSError) as error:
                    log.warning("presence_failed", step=step.__name__.strip("_"), error=str(error))
                except Exception:  # a worker that says no more that it lives is given up, whatever it still does
                    log.exception("presence_broke", step=step.__name__.strip("_"))
            if self._stop.wait(ANNOUNCE_SECONDS):
                return

    def _sweep(self) -> None:
        sweep(self._settings.work_folder)

    def _announce(self) -> None:
        with self._database.session_scope() as session:
            announce(
                session,
                queues=self._queues,
                passes=passes_served(self._settings, self._queues),
                threads=threads_for_models(self._settings),
                confinement=confinement(),
                versions=versions(),
            )
