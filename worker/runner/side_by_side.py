"""Several files measured beside one original: size, latency by turns in one run, and quality on the evaluation data.

A file that the runtime refuses, or that time does not suffice for, costs the others nothing and never fails the job:
what was not measured is None, and the reason stands beside it.
"""

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.jobs.report import Interval, Latency
from app.recipes.request import Metric
from worker.engine.evaluation.requests import ComparisonAnswer
from worker.engine.faults import UserFault, is_disk_full, is_out_of_memory
from worker.engine.model_file import ModelFile
from worker.engine.turns import LEAST_ROUNDS, least_turn_seconds
from worker.runner.disk import disk_full, is_oversized, oversized_file
from worker.runner.measuring import START_SECONDS, TURNS_SECONDS, Laboratory, Share, Subject, noise_warnings

# With one round alone a ratio has no spread.
LEAST_ROUNDS_FOR_SPREAD = 2
# A comparison runs both files three times before it reads on: for the batch, to warm up, and for the time of a call.
LEAST_COMPARED_CALLS = 4
# Of what time there is, the most that goes to timing.
TURNS_SHARE = 0.5


@dataclass(frozen=True)
class Times:
    """Latency of a file and of its original in the same run; `ratio` is the original's over the file's."""

    file: Latency
    original: Latency
    ratio: Interval


@dataclass
class Standing:
    """How one file stands beside its original. Of what is None, `unmeasured` says why."""

    size_bytes: int
    times: Times | None = None
    compared: ComparisonAnswer | None = None
    unmeasured: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader should know before trusting a figure: noise, samples left out."""


def measure_beside(
    laboratory: Laboratory,
    original: Subject,
    files: Mapping[str, ModelFile],
    metric: Metric,
    seconds: float = float("inf"),
    timed_only: Mapping[str, ModelFile] | None = None,
) -> dict[str, Standing]:
    """A standing for every file, by its name, within `seconds` and what is left of the job's budget.

    Files are timed by turns with the original, all in one run, and then compared with it one after another; where time
    does not suffice for all of them the first ones are measured. Those in `timed_only` are timed with them, and not
    compared.
    """
    bench = _Bench(laboratory, original, metric, time.monotonic() + seconds, len(files))
    timed = {**files, **(timed_only or {})}
    standings = {name: Standing(model.size_bytes()) for name, model in timed.items()}
    bench.time(timed, standings, TURNS_SHARE)
    for position, (name, model) in enumerate(files.items()):
        bench.compare(model, standings[name], position)
    return standings


@dataclass(frozen=True)
class _Bench:
    """What every measurement of one call shares; `deadline` is on the clock of `time.monotonic`."""

    laboratory: Laboratory
    original: Subject
    metric: Metric
    deadline: float
    count: int

    def time(self, files: Mapping[str, ModelFile], standings: Mapping[str, Standing], share: float) -> None:
        """Latency of as many files, the first ones, as this share of the time suffices for."""
        footprint = self.original.footprint
        turn = LEAST_ROUNDS_FOR_SPREAD * least_turn_seconds(
            footprint.load_ms / 1e3, footprint.call_ms / 1e3, self.laboratory.round_seconds
        )
        allowed = share * self._seconds_left() - START_SECONDS
        names = list(files)
        fitting = names[: max(0, int(allowed / turn) - 1)]
        if fitting:
            # Short of five rounds turns may take twice the time that they are given.
            whole = LEAST_ROUNDS * (1 + len(fitting)) * turn / LEAST_ROUNDS_FOR_SPREAD
            seconds = allowed if whole <= allowed else allowed / 2
            self._take_turns({name: files[name] for name in fitting}, standings, seconds, share)
        for name in names[len(fitting) :]:
            reason = self._no_time((START_SECONDS + 2 * turn) / share)
            standings[name].unmeasured.append(f"Latency was not measured: {reason}")

    def _take_turns(
        self, files: Mapping[str, ModelFile], standings: Mapping[str, Standing], seconds: float, share: float
    ) -> None:
        seconds = min(seconds, TURNS_SECONDS * (1 + len(files)) / 2)
        try:
            turns = self.laboratory.take_turns(
                [self.original.model, *files.values()], Share(seconds, (0.0, 1 / (1 + self.count)))
            )
        except Exception as error:  # see `why_unmeasured`
            reason = why_unmeasured(error)
            if len(files) == 1:
                standings[next(iter(files))].unmeasured.append(f"Latency was not measured: {reason}")
                return
            # One of them spoils the run for all: each gets a run of its own.
            for name, model in files.items():
                self.time({name: model}, standings, share / len(files))
            return
        for name, latency, ratio in zip(files, turns.latencies[1:], turns.ratios[1:], strict=True):
            standings[name].times = Times(latency, turns.latencies[0], ratio)
            standings[name].notes.extend(noise_warnings(turns))

    def compare(self, model: ModelFile, standing: Standing, position: int) -> None:
        """Quality of one file, in its share of the time that is left for this one and those behind it."""
        footprint = self.original.footprint
        both_ms = 2 * footprint.call_ms
        least = START_SECONDS + (2 * footprint.load_ms + LEAST_COMPARED_CALLS * both_ms) / 1e3
        if self._seconds_left() < least:
            standing.unmeasured.append(f"Quality was not measured: {self._no_time(least)}")
            return
        seconds = max(least, self._seconds_left() / (self.count - position)) - START_SECONDS
        share = Share(seconds, ((1 + position) / (1 + self.count), (2 + position) / (1 + self.count)))
        try:
            standing.compared = self.laboratory.compare(self.original.model, model, self.metric, both_ms, share)
        except Exception as error:  # see `why_unmeasured`
            standing.unmeasured.append(f"Quality was not measured: {why_unmeasured(error)}")
        else:
            standing.notes.extend(standing.compared.warnings)

    def _seconds_left(self) -> float:
        return max(0.0, min(self.deadline - time.monotonic(), self.laboratory.pacing.seconds_left()))

    def _no_time(self, needed_seconds: float) -> str:
        return (
            f"no time was left for it: it takes {needed_seconds:.1f} s or more, and {self._seconds_left():.1f} s were "
            "left. Raise budget_seconds."
        )


def why_unmeasured(error: Exception) -> str:
    """Why a file could not be measured, in words. Whatever it was, what the job delivers is not spoiled by it."""
    if isinstance(error, UserFault):
        return error.fault().detail
    if is_disk_full(error):
        return disk_full().detail
    if is_oversized(error):
        return oversized_file().detail
    if is_out_of_memory(error):
        return "there was not enough memory for it."
    traceback.print_exception(error)
    return f"it ended in {type(error).__name__}, a fault of Lathe's own."
