"""Timing files by turns.

Two live sessions slow each other: their thread pools spin. So each round creates a session, warms it up, times it and
destroys it, for one model after the other, and turns the order round from one round to the next. What is compared is
the median of each round; the ratio is the median of the per-round ratios.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort

from worker.engine.sessions import Device, Feed, open_session, run_session

LEAST_ROUNDS = 5
# Within this much two files are equally fast; and of so many rounds nearly all must agree which is faster.
NOISE, AGREEING_ROUNDS, TELLING_ROUNDS = 1.02, 0.8, 3
# What one or two rounds must show, which cannot disagree with one another as more would: hardly any noise is as large.
CLEARLY_FASTER = 1.3
WARM_UP_CALLS = 3
WARM_UP_SECONDS = 0.05
LEAST_CALLS, MOST_CALLS = 5, 2000
# What a pass takes a round where nobody asks for more: past this much most medians get no steadier, only jobs longer.
ROUND_SECONDS = 0.25


@dataclass
class Timing:
    """Milliseconds of every call by round, and median and mean of each round."""

    rounds: list[list[float]] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, calls: list[float]) -> None:
        self.rounds.append(calls)
        self.medians.append(statistics.median(calls))
        self.means.append(statistics.fmean(calls))


@dataclass(frozen=True)
class Conditions:
    """`rounds` within about `seconds` for all files together; five at least unless that takes twice as long.

    Each file is timed for `round_seconds` a round at most.
    """

    threads: int
    rounds: int
    seconds: float
    device: Device
    round_seconds: float


def take_turns(paths: Sequence[Path], feeds: Sequence[Feed], conditions: Conditions) -> list[Timing]:
    """One timing a file, of equally many rounds, one at least.

    Raises:
        ModelFails: a file does not load or run.

    """
    timings = [Timing() for _ in paths]
    started = time.perf_counter()
    turn_seconds = min(conditions.round_seconds, conditions.seconds / (conditions.rounds * len(paths)))
    for number in range(conditions.rounds):
        order = range(len(paths)) if number % 2 == 0 else reversed(range(len(paths)))
        for index in order:
            timings[index].add(_turn(paths[index], feeds[index], turn_seconds, conditions))
        used = time.perf_counter() - started
        next_end = used * (number + 2) / (number + 1)
        # Beyond the least number of rounds time decides; short of it, only twice the time does.
        if next_end > conditions.seconds * (1 if number + 1 >= LEAST_ROUNDS else 2):
            break
    return timings


def least_turn_seconds(load_seconds: float, call_seconds: float, round_seconds: float) -> float:
    """What one file takes in one round of at most `round_seconds`, however little of that it is given."""
    # A call longer than a whole turn warms up once and is timed once.
    calls = 2 if call_seconds > round_seconds else WARM_UP_CALLS + LEAST_CALLS
    return load_seconds + calls * call_seconds


def ratios(timings: list[Timing]) -> list[list[float]]:
    """By file, how many times faster than the first one it was in each round."""
    first = timings[0].medians
    return [[a / b for a, b in zip(first, timing.medians, strict=True)] for timing in timings]


def is_faster(measured: list[float]) -> bool:
    """Whether ratios, a round each, show more than noise: the one rule by which a file is kept for its speed.

    The median is beyond `NOISE`, and nearly all rounds agree. Of a model so slow that time ends before three rounds,
    every round has to say `CLEARLY_FASTER`; that files were timed so seldom is no reason to throw a fast one away.
    """
    if len(measured) < TELLING_ROUNDS:
        return min(measured, default=0.0) >= CLEARLY_FASTER
    agreeing = sum(ratio > 1 for ratio in measured) >= AGREEING_ROUNDS * len(measured)
    return agreeing and statistics.median(measured) > NOISE


def _turn(path: Path, feed: Feed, seconds: float, conditions: Conditions) -> list[float]:
    session = open_session(path, conditions.threads, device=conditions.device)
    warm_until = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
    for number in range(WARM_UP_CALLS + MOST_CALLS):
        before = time.perf_counter()
        run_session(session, feed)
        after = time.perf_counter()
        if after > warm_until and (number + 1 >= WARM_UP_CALLS or after - before > seconds):
            break
    return _timed_calls(session, feed, seconds)


def _timed_calls(session: ort.InferenceSession, feed: Feed, seconds: float) -> list[float]:
    calls: list[float] = []
    until = time.perf_counter() + seconds
    while len(calls) < MOST_CALLS:
        before = time.perf_counter()
        session.run(None, feed)
        after = time.perf_counter()
        calls.append((after - before) * 1e3)
        # A call longer than the whole turn is timed once or twice, not five times.
        if after > until and (len(calls) >= LEAST_CALLS or after - before > seconds):
            break
    return calls
