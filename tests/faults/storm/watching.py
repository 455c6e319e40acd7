"""What the database shows while the storm lasts: how much is over, and each row as it was when it was over."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database

POLL_SECONDS = 0.25
# All that must never change again, the files that it delivered among it.
FROZEN = text(
    "SELECT j.id, md5(j::text || coalesce((SELECT string_agg(a.id || encode(a.sha256, 'hex'), ',' ORDER BY a.id)"
    " FROM artifacts a WHERE a.job_id = j.id), '') || coalesce((SELECT r.body::text FROM reports r"
    " WHERE r.job_id = j.id), '')) AS digest"
    " FROM jobs j WHERE j.state NOT IN ('queued', 'running') AND j.id <> ALL(:known)"
)
COUNTS = text(
    "SELECT count(*) FILTER (WHERE state NOT IN ('queued', 'running') AND kind = 'optimize') AS over,"
    " count(*) FILTER (WHERE state IN ('queued', 'running')) AS unfinished FROM jobs"
)
RUNNING = text("SELECT id, fence FROM jobs WHERE state = 'running'")


def frozen_rows(database: Database, known: list[UUID]) -> dict[UUID, str]:
    """A digest of every job that is over and not `known`, with all that belongs to it."""
    with database.session_scope() as session:
        return {row.id: row.digest for row in session.execute(FROZEN, {"known": known})}


@dataclass
class Watch:
    """Looks a few times a second, in a thread of its own."""

    database: Database
    over: int = 0
    unfinished: int = 0
    digests: dict[UUID, str] = field(default_factory=dict)
    fences: dict[UUID, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Whether it came true within that time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS / 2)
        return True

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.look()
            except SQLAlchemyError:
                continue  # Postgres is being restarted

    def look(self) -> None:
        self.digests |= frozen_rows(self.database, list(self.digests))
        with self.database.session_scope() as session:
            counts = session.execute(COUNTS).one()
            for job_id, fence in session.execute(RUNNING):
                if fence < self.fences.get(job_id, 0):
                    self.complaints.append(f"the fence of job {job_id} fell to {fence}")
                self.fences[job_id] = fence
        self.over, self.unfinished = counts.over, counts.unfinished
