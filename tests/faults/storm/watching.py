"""What the database shows while the storm lasts: how much is over, and each row as it was when it was over."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database

POLL_SECONDS = 0.25
EVER = datetime.min.replace(tzinfo=UTC)
# A row that is over may be seen so much later than it says: its transaction waited, and Postgres was away.
OVERLAP = timedelta(minutes=10)
# All that must never change again, the files that it delivered among it.
FROZEN = text(
    "SELECT j.id, j.finished_at, md5(j::text"
    " || coalesce((SELECT string_agg(a.id || encode(a.sha256, 'hex'), ',' ORDER BY a.id)"
    " FROM artifacts a WHERE a.job_id = j.id), '') || coalesce((SELECT r.body::text FROM reports r"
    " WHERE r.job_id = j.id), '')) AS digest"
    " FROM jobs j WHERE j.state NOT IN ('queued', 'running') AND j.finished_at >= :since AND j.id <> ALL(:known)"
)
COUNTS = text(
    "SELECT count(*) FILTER (WHERE state NOT IN ('queued', 'running') AND kind = 'optimize') AS over,"
    " count(*) FILTER (WHERE state IN ('queued', 'running')) AS unfinished FROM jobs"
)
RUNNING = text("SELECT id, fence FROM jobs WHERE state = 'running'")


@dataclass(frozen=True)
class Frozen:
    """A job that is over: since when, and a digest of its row with all that belongs to it."""

    at: datetime
    digest: str


def frozen_rows(database: Database, since: datetime = EVER, known: Collection[UUID] = ()) -> dict[UUID, Frozen]:
    """Of every job that is over `since` then and not `known`."""
    with database.session_scope() as session:
        rows = session.execute(FROZEN, {"since": since, "known": list(known)})
        return {row.id: Frozen(row.finished_at, row.digest) for row in rows}


@dataclass
class Watch:
    """Looks a few times a second, in a thread of its own."""

    database: Database
    over: int = 0
    unfinished: int = 0
    frozen: dict[UUID, Frozen] = field(default_factory=dict)
    """Each as it was when it was first seen to be over."""
    fences: dict[UUID, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _recent: dict[UUID, Frozen] = field(default_factory=dict)
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
        # Of ten thousand jobs a look asks for the last ones alone.
        since = max((one.at for one in self._recent.values()), default=EVER + OVERLAP) - OVERLAP
        self._recent = {job_id: one for job_id, one in self._recent.items() if one.at >= since}
        found = frozen_rows(self.database, since, self._recent)
        self._recent |= found
        for job_id, one in found.items():
            self.frozen.setdefault(job_id, one)
        with self.database.session_scope() as session:
            counts = session.execute(COUNTS).one()
            for job_id, fence in session.execute(RUNNING):
                if fence < self.fences.get(job_id, 0):
                    self.complaints.append(f"the fence of job {job_id} fell to {fence}")
                self.fences[job_id] = fence
        self.over, self.unfinished = counts.over, counts.unfinished
