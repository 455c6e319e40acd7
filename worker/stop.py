"""How a worker is told to stop: its jobs go back within the time that whoever stops it will wait."""

import threading
import time


class Stopping(Exception):
    """The worker is being stopped: the job goes back and the attempt is not counted."""


class Stop(threading.Event):
    """Set once and for all; knows when."""

    def __init__(self) -> None:
        super().__init__()
        self._at: float | None = None

    def set(self) -> None:
        if self._at is None:
            self._at = time.monotonic()
        super().set()

    def ensure_time(self, seconds: float) -> None:
        """Raises Stopping where it was set longer ago than that."""
        if self._at is not None and time.monotonic() - self._at > seconds:
            raise Stopping
