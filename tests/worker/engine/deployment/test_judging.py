"""What the figures of the deployment check come to."""

import pytest

from app.jobs.report import Interval, Latency, ThreadLatency
from worker.engine.deployment.judging import FLAT_BYTES, judge_edges, judge_loading, judge_memory, judge_threads
from worker.engine.deployment.requests import AloneAnswer, EdgeAnswer, EdgeOutput, EdgesAnswer, Repeated

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


def edges(*kept: dict[str, float | EdgeOutput]) -> EdgesAnswer:
    """The ordinary case, then those at the edge; by output the dB of floats, or what is kept."""
    cases = []
    for number, outputs in enumerate(kept):
        found = {
            name: one if isinstance(one, EdgeOutput) else EdgeOutput(agreement=0.9, sqnr_db=one)
            for name, one in outputs.items()
        }
        cases.append(EdgeAnswer(name=f"case{number}", outcome="compared", words="fed", outputs=found))
    return EdgesAnswer(cases=cases)


SAME, OTHER = EdgeOutput(agreement=1.0), EdgeOutput(agreement=0.0)


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        pytest.param(edges({"y": 40}, {"y": 20}), "passed", "finite where it is, 20.0 dB or more.", id="floats"),
        pytest.param(edges({"y": 40}, {"y": 2}), "failed", "y keeps 2.0 dB, 3.0 are the least", id="far-floats"),
        pytest.param(edges({"y": 4}, {"y": 2}), "passed", "How much of y stays was not judged", id="floats-of-its-own"),
        pytest.param(edges({"c": SAME}, {"c": SAME}), "passed", "in case1: 100.0% or more of whole", id="exact"),
        pytest.param(edges({"c": SAME}, {"c": OTHER}, {"c": OTHER}), "failed", "0.0% of c is the same", id="far-exact"),
        pytest.param(edges({"c": SAME}, {"c": OTHER}, {"c": SAME}), "passed", ": 0.0% or more of whole", id="one-tie"),
        pytest.param(edges({"c": OTHER}, {"c": OTHER}), "passed", "How much of c stays was not", id="exact-of-its-own"),
        pytest.param(edges({"y": 40, "z": 1}, {"y": 2, "z": 1}), "failed", "y keeps 2.0 dB", id="beside-a-lost-output"),
        pytest.param(edges({"y": 40, "z": 1}, {"y": 9, "z": 1}), "passed", "How much of z stays", id="lost-is-named"),
        pytest.param(edges({}, {}), "skipped", "no output is a tensor", id="nothing-to-compare"),
    ],
)
def test_each_output_is_held_to_what_it_keeps_of_ordinary_input(answer: EdgesAnswer, outcome: str, words: str) -> None:
    found, _ = judge_edges("extreme_values", answer)
    assert found.outcome == outcome
    assert words in found.words
