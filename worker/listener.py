"""Hears what a runner says of its progress, and writes it down a few times a second."""

import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from pydantic import ValidationError

from app.database import DATABASE_AWAY, Database
from app.jobs import lease
from app.jobs.lease import Claim, Progress
from worker.runner.contract import MAX_EVENT_BYTES, Best, Event, Piece, without_nul
from worker.threads import thread_of_attempt

# Beyond this an attempt shows its progress and nothing else; a runner could fill the disk with what it says. What a
# search tried is counted apart: a day of progress must not take its place.
MAX_EVENTS = 5000
MAX_PHASES = 1000
FLUSH_SECONDS = 0.5
# The job's row follows every value; the list of events keeps those that a reader would notice.
VISIBLE_PROGRESS = 0.01
REPEAT_SECONDS = 5.0
log = structlog.get_logger()


class Listener:
    """Reads events off a pipe in a thread; `flush` stores what was heard since the last time.

    The runner is not trusted: a line that is too long, or no event, ends the listening and nothing else.
    """

    def __init__(
        self,
        claim: Claim,
        read_fd: int,
        on_checkpoint: Callable[[int, str], None],
        on_best: Callable[[Best], None],
        on_piece: Callable[[Piece], None],
    ) -> None:
        self._claim = claim
        self._on_checkpoint = on_checkpoint
        self._on_best = on_best
        self._on_piece = on_piece
        self._read_fd = read_fd
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._progress = Progress()
        self._kept: Counter[bool] = Counter()  # by whether they tell of what was found
        self._noted = (-1.0, 0.0)  # progress, and when it became an event
        self._flushed = time.monotonic()
        self.phases: list[tuple[str, int]] = []
        """Each phase that was heard of, and when it began: nanoseconds since 1970."""
        self._thread = thread_of_attempt(self._listen, f"listener-{claim.job_id}")
        self._thread.start()

    def flush(self, database: Database, *, force: bool = False) -> bool:
        """Store what was heard, at most every `FLUSH_SECONDS` unless forced. Whether a cancel came back with it."""
        if not force and time.monotonic() - self._flushed < FLUSH_SECONDS:
            return False
        self._flushed = time.monotonic()
        with self._lock:
            events, progress = self._events, self._progress
            self._events, self._progress = [], Progress()
        if not events and progress == Progress():
            return False
        try:
            with database.session_scope() as session:
                return lease.record(session, self._claim, progress, events) is True
        except DATABASE_AWAY as error:
            log.warning("progress_not_recorded", error=str(error))
            with self._lock:
                self._events = events + self._events
            return False

    def close(self) -> None:
        """Wait for the end of the pipe, which comes with the end of the runner."""
        self._thread.join(timeout=5)

    def _listen(self) -> None:
        with os.fdopen(self._read_fd, "rb") as pipe:
            while line := pipe.readline(MAX_EVENT_BYTES):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("a line without an end")
                    self._hear(Event.model_validate_json(without_nul(line)))
                except (ValidationError, ValueError) as error:
                    log.warning("event_refused", error=str(error)[:200])
                    break
            while pipe.read(MAX_EVENT_BYTES):  # a full pipe would stop the runner
                pass

    def _hear(self, event: Event) -> None:
        if event.type == "checkpoint":
            if event.step is not None and event.file is not None:
                self._on_checkpoint(event.step, event.file)
            return
        if event.type == "best":
            if event.best is not None:
                self._on_best(event.best)
            return
        if event.type == "piece":
            if event.piece is not None:
                self._on_piece(event.piece)
            return
        if event.phase is not None and len(self.phases) < MAX_PHASES:
            self.phases.append((event.phase, time.time_ns()))
        with self._lock:
            before = self._progress
            self._progress = Progress(
                phase=event.phase or before.phase,
                progress=before.progress if event.progress is None else event.progress,
                eta_seconds=before.eta_seconds if event.eta_seconds is None else event.eta_seconds,
            )
            if event.type == "progress" and not self._is_news(self._progress.progress or 0.0):
                return
            # By way of text: what is not finite becomes null there, and Postgres keeps no other.
            data: dict[str, Any] = json.loads(event.model_dump_json(exclude_none=True))
            if event.type == "progress" and self._events and self._events[-1]["type"] == "progress":
                self._events[-1] = data
            elif self._kept[event.type == "trial"] < MAX_EVENTS:
                self._kept[event.type == "trial"] += 1
                self._events.append(data)
        if event.type == "trial":
            self._flushed = -math.inf  # minutes of work: it does not wait with what may be lost

    def _is_news(self, progress: float) -> bool:
        """Whether progress went visibly on since it was last among the events, or was not there for a while."""
        (before, at), now = self._noted, time.monotonic()
        if abs(progress - before) < VISIBLE_PROGRESS and now - at < REPEAT_SECONDS:
            return False
        self._noted = (progress, now)
        return True
