"""What the runner tells its supervisor while it works: JSON lines on an inherited pipe."""

import os
from typing import Literal

from app.jobs.report import TrainedEpoch, TrialReport
from worker.runner.contract import EVENT_FD_VARIABLE, Best, Event, Piece

# Room within the contract's 8192 for what escaping adds to names that are no valid Unicode.
MAX_MESSAGE_CHARACTERS = 2048
SUPERVISOR_GONE = 0


class Events:
    """Writes `Event`s to the file descriptor named in the environment; without one, writes nothing."""

    def __init__(self) -> None:
        self._descriptor = int(os.environ[EVENT_FD_VARIABLE]) if EVENT_FD_VARIABLE in os.environ else None

    def phase(self, name: str, progress: float | None = None) -> None:
        """A phase begins. `progress` is that of the whole job, 0 to 1."""
        self._write(Event(type="phase", phase=name, progress=_share(progress)))

    def progress(self, value: float, eta_seconds: float | None = None) -> None:
        """The whole job stands at `value`, 0 to 1, and may take `eta_seconds` more."""
        eta_seconds = None if eta_seconds is None else max(0.0, eta_seconds)
        self._write(Event(type="progress", progress=_share(value), eta_seconds=eta_seconds))

    def log(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """A line for the user. Overlong messages are cut; names of a file need not be valid Unicode, JSON must be."""
        message = message[:MAX_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        self._write(Event(type="log", level=level, message=message))

    def epoch(self, epoch: TrainedEpoch) -> None:
        """An epoch of training ended."""
        self._write(Event(type="epoch", epoch=epoch))

    def trial(self, trial: TrialReport) -> None:
        """A candidate of a search was tried."""
        self._write(Event(type="trial", trial=trial))

    def best(self, best: Best) -> None:
        """A candidate beats those before it; its file lies in its folder."""
        self._write(Event(type="best", best=best))

    def piece(self, piece: Piece) -> None:
        """Something is finished that a later search can go on from; its file lies in its folder."""
        self._write(Event(type="piece", piece=piece))

    def checkpoint(self, step: int, file: str) -> None:
        """A checkpoint of this step of the recipe lies in its folder under the name `file`."""
        self._write(Event(type="checkpoint", step=step, file=file))

    def _write(self, event: Event) -> None:
        if self._descriptor is None:
            return
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except BrokenPipeError:
            # Nobody is left to read the result either. os._exit, because library code may swallow SystemExit.
            os._exit(SUPERVISOR_GONE)


def _share(value: float | None) -> float | None:
    """Rounding errors of a caller's sum must not end a job."""
    return None if value is None else min(1.0, max(0.0, value))
