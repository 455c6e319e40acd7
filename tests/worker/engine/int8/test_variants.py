"""Ranges and bits of weights are chosen by what the outputs keep; the first proposal stays where little is gained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.int8.conftest import SamplesContext
from worker.engine.calibration import Calibration, Method, Range, Settings, calibrate
from worker.engine.int8.building import builder, maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.int8.variants import Tried, Variant, most_faithful
from worker.engine.model_file import ModelFile

Choose = Callable[..., Tried]


@pytest.fixture
def choose(saved: Callable[..., ModelFile], context: SamplesContext) -> Choose:
    """`most_faithful` on a small network, with its exact ranges multiplied by a factor for each method."""
    file = saved(networks.convnet())
    given = context(
        networks.convnet(), image=np.random.default_rng(1).standard_normal((16, 3, 16, 16)).astype(np.float32)
    )
    everything = eligible(units_of(file.graph()), False, None, [])
    exact = calibrate(file, Settings("minmax"), given, lambda _share: None, tensors_to_calibrate(everything))

    def build(variant: Variant, placement: Placement, folder: Path) -> ModelFile:
        maps = maps_of(everything, variant.calibration)
        return builder(file, lambda placed: plain_numbers(placed, maps, Rounding(bits=variant.bits)))(placement, folder)

    def chosen(factors: dict[Method, float], bits: tuple[int, ...] = (7,), **changes: Any) -> Tried:
        methods = {
            method: Calibration(
                {name: Range(one.low * factor, one.high * factor) for name, one in exact.ranges.items()}, 16, []
            )
            for method, factor in factors.items()
        }
        return most_faithful(file, everything, methods, bits, build, replace(given, **changes))

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
    tried = choose(factors)
    assert tried.kept.method == kept
    assert [variant.method for variant, _ in tried.fidelities] == ["mse", "minmax"]


def test_more_bits_are_taken_where_they_keep_more(choose: Choose) -> None:
    """Four bits of a weight are eight times as coarse as seven."""
    tried = choose({"mse": 1.0}, bits=(4, 7))
    assert tried.kept.bits == 7
    assert "7-bit weights" in tried.in_words()[0]


def test_nothing_is_built_where_there_is_no_choice(choose: Choose) -> None:
    tried = choose({"percentile": 1.0})
    assert (tried.kept.method, tried.fidelities, tried.in_words()) == ("percentile", [], [])


def test_the_first_is_kept_where_time_is_short(choose: Choose) -> None:
    tried = choose({"mse": 0.05, "minmax": 1.0}, deadline=0.0)
    assert tried.kept.method == "mse"
    assert len(tried.fidelities) == 1
