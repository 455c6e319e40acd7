"""The method of ranges is chosen by what the outputs keep; the first stays where little is gained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.calibration import Calibration, Method, Range, Settings, calibrate
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.range_choice import RangeChoice, most_faithful
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile

Choose = Callable[..., RangeChoice]


@pytest.fixture
def choose(saved: Callable[..., ModelFile], context: SamplesContext) -> Choose:
    """`most_faithful` on a small network, with its exact ranges multiplied by a factor for each method."""
    file = saved(networks.convnet())
    given = context(
        networks.convnet(), image=np.random.default_rng(1).standard_normal((16, 3, 16, 16)).astype(np.float32)
    )
    everything = eligible(units_of(read_graph(file)), False, None, [])
    exact = calibrate(file, Settings("minmax"), given, lambda _share: None, tensors_to_calibrate(everything))

    def build(calibration: Calibration, folder: Path) -> ModelFile:
        maps = maps_of(everything, calibration)
        return builder(file, lambda placed: plain_numbers(placed, maps, Rounding(unsaturated=True)))(everything, folder)

    def chosen(factors: dict[Method, float], **changes: Any) -> RangeChoice:
        calibrations = {
            method: Calibration(
                {name: Range(one.low * factor, one.high * factor) for name, one in exact.ranges.items()}, 16, []
            )
            for method, factor in factors.items()
        }
        return most_faithful(file, calibrations, build, replace(given, **changes))

    return chosen


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ({"mse": 0.05, "minmax": 1.0}, "minmax"),
        ({"mse": 1.0, "minmax": 50.0}, "mse"),
        ({"mse": 1.0, "minmax": 1.0}, "mse"),
    ],
    ids=["cut-off-too-much", "too-wide", "no-difference"],
)
def test_the_ranges_that_keep_more_are_chosen(choose: Choose, factors: dict[Method, float], kept: Method) -> None:
    choice = choose(factors)
    assert choice.method == kept
    assert list(choice.sqnr_db) == ["mse", "minmax"]


def test_nothing_is_built_where_there_is_no_choice(choose: Choose) -> None:
    choice = choose({"percentile": 1.0})
    assert (choice.method, choice.sqnr_db, choice.in_words()) == ("percentile", {}, [])


def test_the_first_is_kept_where_time_is_short(choose: Choose) -> None:
    choice = choose({"mse": 0.05, "minmax": 1.0}, deadline=0.0)
    assert choice.method == "mse"
    assert list(choice.sqnr_db) == ["mse"]
