"""The ranges of a model's activations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from worker.engine.calibration.histogram import Histogram
from worker.engine.calibration.observing import activations, observe
from worker.engine.calibration.thresholds import Method, choose_range
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext


@dataclass(frozen=True)
class Range:
    """Smallest and largest value that the codes of one tensor should span."""

    low: float
    high: float


@dataclass(frozen=True)
class Settings:
    """`percentile` (of 100) is the share of values kept by the method of that name."""

    method: Method = "minmax"
    percentile: float = 100.0
    samples: int = 256


@dataclass(frozen=True)
class Calibration:
    """Ranges by tensor name, in the order of the graph, from `sample_count` samples.

    `not_finite` are the tensors through which NaN or infinity passed, each with its range in all other calls; None
    where there were none. They are not among `ranges`.
    """

    ranges: dict[str, Range]
    sample_count: int
    not_finite: dict[str, Range | None]


def calibrate(
    model: ModelFile,
    settings: Settings,
    context: PassContext,
    progress: Callable[[float], None],
    tensors: dict[str, int] | None = None,
) -> Calibration:
    """The ranges of `settings.method`, of each of `tensors` (element type by name).

    See `calibrate_by`.
    """
    return calibrate_by((settings.method,), model, settings, context, progress, tensors)[settings.method]


def calibrate_by(
    methods: tuple[Method, ...],
    model: ModelFile,
    settings: Settings,
    context: PassContext,
    progress: Callable[[float], None],
    tensors: dict[str, int] | None = None,
) -> dict[Method, Calibration]:
    """By method, the ranges of `tensors`, by default of every float tensor that nodes exchange; data is read once.

    Stops early, with what it has, when the context's time is used up; at least one call is always made. A tensor that
    was empty in every call has no range.

    Raises:
        ModelFails: a call fails.

    """
    wanted = activations(model.structure()) if tensors is None else tensors
    with_histograms = any(method != "minmax" for method in methods)
    seen, count = observe(model, wanted, context, settings.samples, with_histograms, progress)
    calibrations: dict[Method, Calibration] = {}
    for method in methods:
        found = {name: _range_of(one.histogram, method, settings.percentile) for name, one in seen.items()}
        calibrations[method] = Calibration(
            {name: known for name, known in found.items() if known is not None and seen[name].finite},
            count,
            {name: known for name, known in found.items() if not seen[name].finite},
        )
    return calibrations


def _range_of(histogram: Histogram, method: Method, percentile: float) -> Range | None:
    """None where nothing was counted."""
    if histogram.low > histogram.high:
        return None
    return Range(*choose_range(histogram, method, percentile))


def in_numbers(calibrations: Mapping[Method, Calibration]) -> dict[str, np.ndarray]:
    """What they say, as arrays by name, for `from_numbers`."""
    found = {}
    for method, calibration in calibrations.items():
        found[f"{method}/count"] = np.array([calibration.sample_count], np.float64)
        found |= {f"{method}/range/{name}": _bounds(one) for name, one in calibration.ranges.items()}
        found |= {f"{method}/not finite/{name}": _bounds(one) for name, one in calibration.not_finite.items()}
    return found


def _bounds(known: Range | None) -> np.ndarray:
    return np.array([] if known is None else [known.low, known.high], np.float64)


def from_numbers(numbers: Mapping[str, np.ndarray], methods: tuple[Method, ...]) -> dict[Method, Calibration]:
    """The calibrations that `numbers` were made of."""

    def named(start: str) -> dict[str, Range | None]:
        found = {name.removeprefix(start): array.tolist() for name, array in numbers.items() if name.startswith(start)}
        return {name: Range(*bounds) if bounds else None for name, bounds in found.items()}

    return {
        method: Calibration(
            {name: known for name, known in named(f"{method}/range/").items() if known is not None},
            int(numbers[f"{method}/count"][0]),
            named(f"{method}/not finite/"),
        )
        for method in methods
    }
