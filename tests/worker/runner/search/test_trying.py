"""Speeds measured in different runs, on one scale."""

from pathlib import Path

import pytest

from worker.engine.model_file import ModelFile
from worker.runner.search.trying import Yardstick


def test_what_the_original_does_in_another_run_changes_no_order() -> None:
    """The yardstick was 2.2 times as fast; where the original is faster it is 1.6, and a candidate of 2.0 beats it."""
    yardstick = Yardstick(ModelFile(Path("static.onnx")), 2.2)
    scaled = yardstick.scaled(2.0, own=1.6)
    assert scaled == pytest.approx(2.75)
    assert scaled > yardstick.ratio


def test_without_its_own_time_nothing_is_scaled() -> None:
    assert Yardstick(ModelFile(Path("static.onnx")), 2.2).scaled(2.0, None) == 2.0


def test_the_luckiest_of_equals_is_no_new_yardstick() -> None:
    """Whatever is timed beside it after that would look the faster for it."""
    yardstick, other = Yardstick(ModelFile(Path("static.onnx")), 2.0), ModelFile(Path("other.onnx"))
    assert yardstick.or_faster(other, 2.1) == yardstick
    assert yardstick.or_faster(other, 3.0) == Yardstick(other, 3.0)
