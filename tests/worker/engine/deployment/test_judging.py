"""What the figures of the deployment check come to."""

import pytest

from app.jobs.report import Interval, Latency, ThreadLatency
from worker.engine.deployment.judging import FLAT_BYTES, judge_loading, judge_memory, judge_threads
from worker.engine.deployment.requests import AloneAnswer, Repeated

START = 50 << 20


def curve(before_half: int, after_half: int) -> list[tuple[int, int]]:
    """1,000 runs that grow by so many bytes in each half."""
    points = [(run, START + before_half * run // 500) for run in range(0, 500, 10)]
    return points + [(500 + run, START + before_half + after_half * run // 500) for run in range(0, 510, 10)]


@pytest.mark.parametrize(
    ("points", "outcome"),
    [
        pytest.param(curve(0, 0), "passed", id="flat"),
        pytest.param(curve(100 << 20, 0), "passed", id="an-arena-that-fills-first"),
        pytest.param(curve(0, FLAT_BYTES), "passed", id="at-the-bound"),
        pytest.param(curve(0, 500 * 4096), "failed", id="a-page-a-call"),
        pytest.param([(0, START), (10, START)], "skipped", id="too-few"),
        pytest.param([], "skipped", id="none"),
    ],
)
def test_memory_is_flat_where_the_second_half_is(points: list[tuple[int, int]], outcome: str) -> None:
    assert judge_memory(points).outcome == outcome


def test_a_process_that_needed_more_than_the_runtime_fails() -> None:
    ran = Repeated(callers=1, runs=10, different_runs=0, different_outputs={})
    answer = AloneAnswer(modules=["numpy", "onnxruntime", "torch"], versions={}, load_ms=1.0, alone=ran)
    found = judge_loading(answer)
    assert found.outcome == "failed"
    assert "torch" in found.words


def timed(threads: int, ratio: float) -> ThreadLatency:
    latency = Latency(p50_ms=1, p90_ms=1, p99_ms=2, mean_ms=1, call_count=9, round_medians_ms=[1])
    return ThreadLatency(threads=threads, original=latency, optimized=latency, ratio=Interval(value=ratio))


@pytest.mark.parametrize(
    ("slower", "slower_fails", "outcome"),
    [
        pytest.param([], True, "passed", id="faster-everywhere"),
        pytest.param([2], True, "failed", id="slower-where-speed-is-wanted"),
        pytest.param([2], False, "passed", id="slower-where-size-is-wanted"),
    ],
)
def test_being_slower_fails_where_speed_is_wanted(slower: list[int], slower_fails: bool, outcome: str) -> None:
    found = judge_threads([timed(1, 2.0), timed(2, 0.5)], slower, slower_fails, [])
    assert found.outcome == outcome
    assert ("Slower than the original with 2." in found.words) == bool(slower)
    assert found.figures["p99_at_2_ms"] == 2
