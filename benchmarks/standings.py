"""What was measured of one way to make a file faster, and which of several is the best."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.entries import Entry

# Below these a file is no replacement of its original, however fast: noise of a tenth of the signal's power, and what a
# user would notice first.
LEAST_SQNR_DB = 10.0
MOST_ACCURACY_LOST = 0.01


@dataclass
class Standing:
    """Measurements of one entry on one model. `failure` says why there are none. `medians_ms`: one a round."""

    entry: Entry
    failure: str | None = None
    path: str = ""
    size_bytes: int = 0
    seconds: float | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    medians_ms: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_unchanged: bool = False

    def speeds(self, original: "Standing") -> list[float]:
        """How many times as fast as the original, round by round."""
        return [ours / mine for ours, mine in zip(original.medians_ms, self.medians_ms, strict=True)]

    def speed(self, original: "Standing") -> float:
        return statistics.median(self.speeds(original))

    def is_faithful(self, original: "Standing") -> bool:
        """By accuracy where it is known, else by SQNR. SQNR None: not a bit differs."""
        if self.accuracy is not None and original.accuracy is not None:
            # Shares of whole samples: what is exactly one point less may come out a hair above it.
            return original.accuracy - self.accuracy <= MOST_ACCURACY_LOST + 1e-9
        return self.sqnr_db is None or self.sqnr_db >= LEAST_SQNR_DB


def best(original: Standing, standings: Iterable[Standing]) -> Standing | None:
    """The fastest of those that ran and are faithful; None where there is none."""
    running = [one for one in standings if one.failure is None and one.medians_ms]
    faithful = [one for one in running if one.is_faithful(original)]
    return max(faithful, key=lambda one: one.speed(original), default=None)


def best_peer(original: Standing, standings: Iterable[Standing]) -> Standing | None:
    return best(original, [one for one in standings if one.entry.side == "peer"])


def default_recipe(original: Standing, standings: Iterable[Standing]) -> Standing | None:
    """Lathe's result: of the passes that its default recipe may be, the best; where none is faithful, the first."""
    candidates = [one for one in standings if one.entry.default_recipe and one.failure is None and one.medians_ms]
    return best(original, candidates) or next(iter(candidates), None)
