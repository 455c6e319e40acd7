"""Probe: latency by turns.

The interval of a ratio is taken from the order statistics of the per-round ratios (H. A. David, H. N. Nagaraja, Order
Statistics, 3rd ed., section 7.1), which assumes no distribution.
"""

import math
import statistics
from pathlib import Path

import numpy as np

from app.jobs.report import Interval, Latency
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.requests import Turns, TurnsAnswer
from worker.engine.turns import Conditions, Timing, ratios, take_turns


def measure(request: Turns) -> TurnsAnswer:
    """At least one round is always run, five unless `seconds` forbids it."""
    conditions = Conditions(request.threads, request.rounds, request.seconds, request.device, request.round_seconds)
    feeds = [next(feed.open().calls(1)).feed for feed in request.feeds]
    timings = take_turns([Path(model) for model in request.models], feeds, conditions)
    return TurnsAnswer(
        latencies=[_latency(timing) for timing in timings],
        ratios=[median_interval(values) for values in ratios(timings)],
        calls_per_second=[1e3 / statistics.median(timing.means) for timing in timings],
    )


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


def main() -> None:
    serve_probe(Turns, measure)


if __name__ == "__main__":
    main()
