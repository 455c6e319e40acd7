"""Files take turns: equally many rounds each, and ratios round by round."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.conftest import ROUND_SECONDS
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine import turns
from worker.engine.sessions import ModelFails, open_session
from worker.engine.turns import LEAST_CALLS, Conditions, Timing, is_faster, least_turn_seconds, ratios, take_turns

FEED = {"x": normal(2, 8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return networks.save(networks.perceptron(), tmp_path)


def test_every_file_has_equally_many_rounds_of_some_calls(path: Path) -> None:
    timings = take_turns(
        [path, path, path],
        [FEED] * 3,
        Conditions(threads=1, rounds=4, seconds=0.2, device="cpu", round_seconds=ROUND_SECONDS),
    )
    assert len({len(timing.rounds) for timing in timings}) == 1
    for timing in timings:
        assert 1 <= len(timing.rounds) <= 4
        assert all(len(calls) >= LEAST_CALLS for calls in timing.rounds)
        assert timing.medians == [float(np.median(calls)) for calls in timing.rounds]
        assert all(calls and min(calls) > 0 for calls in timing.rounds)


def test_however_little_time_there_is_one_round_is_made(path: Path) -> None:
    timings = take_turns(
        [path, path],
        [FEED] * 2,
        Conditions(threads=1, rounds=5, seconds=1e-9, device="cpu", round_seconds=ROUND_SECONDS),
    )
    assert [len(timing.rounds) for timing in timings] == [1, 1]


def test_the_order_turns_round_from_one_round_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes second in a round finds a warmer machine: each must be second as often."""
    order: list[str] = []

    def opened(path: Path, *given: Any, **named: Any) -> ort.InferenceSession:
        order.append(path.parent.name)
        return open_session(path, *given, **named)

    monkeypatch.setattr(turns, "open_session", opened)
    monkeypatch.setattr(turns, "MOST_CALLS", 5)
    files = [networks.save(networks.perceptron(), tmp_path / name) for name in "abc"]
    take_turns(
        files, [FEED] * 3, Conditions(threads=1, rounds=3, seconds=60, device="cpu", round_seconds=ROUND_SECONDS)
    )
    assert "".join(order) == "abccbaabc"


def test_ratios_are_of_the_medians_of_the_same_round() -> None:
    first, second = Timing(), Timing()
    for calls in ([4.0, 4.0, 400.0], [8.0, 8.0, 8.0]):
        first.add(calls)
    for calls in ([2.0, 2.0, 2.0], [16.0, 1.0, 16.0]):
        second.add(calls)
    assert ratios([first, second]) == [[1.0, 1.0], [2.0, 0.5]]


def test_a_file_that_does_not_run_is_said(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelFails):
        take_turns(
            [path, broken],
            [FEED] * 2,
            Conditions(threads=1, rounds=1, seconds=0.1, device="cpu", round_seconds=ROUND_SECONDS),
        )


@pytest.mark.parametrize(("round_seconds", "calls"), [(0.25, 2), (2.0, 8)])
def test_what_a_turn_takes_at_least_depends_on_how_long_rounds_are(round_seconds: float, calls: int) -> None:
    assert least_turn_seconds(0.1, 0.5, round_seconds) == pytest.approx(0.1 + calls * 0.5)


@pytest.mark.parametrize(
    ("measured", "faster"),
    [
        ([1.2] * 3, True),
        ([1.01] * 7, False),
        ([0.9, 1.2, 1.2, 1.2, 1.2], True),
        ([0.9, 0.9, 1.2, 1.2, 1.2], False),
        ([3.0], True),
        ([1.2], False),
        ([1.4, 1.5], True),
        ([1.2, 3.0], False),
        ([], False),
    ],
    ids=[
        "three-rounds",
        "within-noise",
        "one-round-disturbed",
        "rounds-disagree",
        "one-round-and-clearly",
        "one-round-and-hardly",
        "two-rounds-and-clearly",
        "two-rounds-and-one-hardly",
        "never-timed",
    ],
)
def test_noise_is_not_taken_for_speed(measured: list[float], faster: bool) -> None:
    assert is_faster(measured) == faster
