"""Probe: latency by turns.

Two live sessions slow each other: their thread pools spin. So each round creates a session, warms it up, times it and
destroys it, for one model after the other, and turns the order round from one round to the next. What is compared is
the median of each round; the ratio is the median of the per-round ratios, its interval taken from their order
statistics (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1), which assumes no distribution.
"""

import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort

from app.jobs.report import Interval, Latency
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.requests import Turns, TurnsAnswer
from worker.engine.sessions import Feed, open_session, run_session

LEAST_ROUNDS = 5
WARM_UP_CALLS = 3
WARM_UP_SECONDS = 0.05
LEAST_CALLS, MOST_CALLS = 5, 2000
# Past this much a round's median gets no steadier, only the job longer.
ROUND_SECONDS = 0.25


@dataclass
class Timing:
    """Milliseconds of every call by round, and median and mean of each round."""

    rounds: list[list[float]] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)


def measure(request: Turns) -> TurnsAnswer:
    """At least one round is always run, five unless `seconds` forbids it."""
    paths = [Path(model) for model in request.models]
    feeds = [next(feed.open().calls(1)).feed for feed in request.feeds]
    timings = [Timing() for _ in paths]
    started = time.perf_counter()
    turn_seconds = min(ROUND_SECONDS, request.seconds / (request.rounds * len(paths)))
    for number in range(request.rounds):
        order = range(len(paths)) if number % 2 == 0 else reversed(range(len(paths)))
        for index in order:
            _take_turn(request, paths[index], feeds[index], turn_seconds, timings[index])
        used = time.perf_counter() - started
        next_end = used * (number + 2) / (number + 1)
        # Beyond the least number of rounds time decides; short of it, only twice the time does.
        if next_end > request.seconds * (1 if number + 1 >= LEAST_ROUNDS else 2):
            break
    first = timings[0].medians
    return TurnsAnswer(
        latencies=[_latency(timing) for timing in timings],
        ratios=[median_interval([a / b for a, b in zip(first, timing.medians, strict=True)]) for timing in timings],
        calls_per_second=[1e3 / statistics.median(timing.means) for timing in timings],
    )


def _take_turn(request: Turns, path: Path, feed: Feed, seconds: float, timing: Timing) -> None:
    session = open_session(path, request.threads, device=request.device)
    warm_until = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
    for number in range(WARM_UP_CALLS + MOST_CALLS):
        before = time.perf_counter()
        run_session(session, feed)
        after = time.perf_counter()
        if after > warm_until and (number + 1 >= WARM_UP_CALLS or after - before > seconds):
            break
    calls = _timed_calls(session, feed, seconds)
    timing.rounds.append(calls)
    timing.medians.append(statistics.median(calls))
    timing.means.append(statistics.fmean(calls))


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


def median_interval(values: list[float]) -> Interval:
    """Median with a 95 % interval; with fewer than six values no interval reaches 95 %, and it is their whole range."""
    ordered = sorted(values)
    count = len(ordered)
    tail, cut = 0.0, 0
    for index in range(count // 2):
        tail += math.comb(count, index) / 2**count
        if tail > 0.025:
            break
        cut = index
    if count == 1:
        return Interval(value=ordered[0])
    return Interval(value=statistics.median(ordered), low=ordered[cut], high=ordered[count - 1 - cut])


def _latency(timing: Timing) -> Latency:
    """Every round weighs the same: one that the machine disturbed holds fewer calls, not less of the truth."""
    calls = np.concatenate(timing.rounds)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in timing.rounds])
    p50, p90, p99 = (
        float(value) for value in np.percentile(calls, [50, 90, 99], weights=weights, method="inverted_cdf")
    )
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=statistics.fmean(timing.means),
        call_count=len(calls),
        round_medians_ms=timing.medians,
    )


if __name__ == "__main__":
    serve_probe(Turns, measure)
