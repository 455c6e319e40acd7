"""What passes are told of speed: as many rounds for every file, each as a ratio to the first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal
from worker.engine import timing
from worker.engine.model_file import ModelFile
from worker.engine.profiling import NodeTime
from worker.engine.timing import LEAST_MILLISECONDS, profiled, times_as_fast, too_short
from worker.engine.turns import Timing


def test_files_are_told_by_their_ratio_to_the_first(
    saved: Callable[..., ModelFile], context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = networks.perceptron()
    given = context(model, x=normal(2, 8))
    files = [saved(model, "first"), saved(model, "second")]
    first, second = times_as_fast(files, given, rounds=3, seconds=0.5)
    assert first == [1.0] * len(second)
    assert 1 <= len(second) <= 3
    milliseconds = {"first": [2.0, 3.0], "second": [1.0, 2.0]}
    asked: list[Path] = []

    def timed(paths: list[Path], *_rest: object) -> list[Timing]:
        asked.extend(paths)
        return [Timing(medians=milliseconds[path.parent.name]) for path in paths]

    monkeypatch.setattr(timing, "take_turns", timed)
    assert times_as_fast(files, given, rounds=3, seconds=0.5) == [[1.0, 1.0], [2.0, 1.5]]
    assert asked == [file.path for file in files]


def test_kernels_are_told_and_nothing_is_left_behind(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    model = networks.perceptron()
    given = context(model, x=normal(2, 8))
    assert any("Gemm" in time.operator or "MatMul" in time.operator for time in profiled(saved(model), given, 0.05))
    assert list(given.scratch.iterdir()) == []


def test_a_call_of_microseconds_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    half = NodeTime("product", "MatMul", "float", LEAST_MILLISECONDS / 2, 10)
    assert too_short([half])
    assert not too_short([half, half])
    monkeypatch.setattr(timing, "LEAST_MILLISECONDS", 0.0)
    assert not too_short([half])
