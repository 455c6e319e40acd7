"""Where a job stands, and how much of its time is left."""

import time
from dataclasses import dataclass, field

from worker.runner.events import Events

LEAST_PAUSE_SECONDS = 0.25
# From here on an estimate of what is left means something.
LEAST_PROGRESS = 0.12
MEASURING_SHARE = 0.4


@dataclass
class Pacing:
    """Turns shares of a phase into shares of the job, and counts the budget down from the start."""

    events: Events
    budget_seconds: float
    started: float = field(default_factory=time.monotonic)
    _from: float = 0.0
    _to: float = 1.0
    _written: float = 0.0
    _value: float = 0.0

    def span(self, start: float, end: float) -> None:
        """What follows takes the job from `start` to `end`, 0 to 1."""
        self._from, self._to = start, end
        self.at(0.0)

    def phase(self, name: str) -> None:
        """A phase begins where the job stands."""
        self.events.phase(name, self._value)

    def at(self, share: float) -> None:
        """The present span is done to this share. Progress never goes back."""
        self._value = max(self._value, self._from + (self._to - self._from) * min(1.0, max(0.0, share)))
        now = time.monotonic()
        if now - self._written < LEAST_PAUSE_SECONDS:
            return
        self._written = now
        eta = None
        if self._value >= LEAST_PROGRESS:
            eta = min((now - self.started) * (1 - self._value) / self._value, max(self.seconds_left(), 0.0))
        self.events.progress(self._value, eta)

    def seconds_left(self) -> float:
        return self.started + self.budget_seconds - time.monotonic()

    def passes_deadline(self) -> float:
        """On the clock of `time.monotonic`: after it, what is left of the budget belongs to measuring."""
        return self.started + self.budget_seconds * (1 - MEASURING_SHARE)
