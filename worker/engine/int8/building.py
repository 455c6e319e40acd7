"""From a placement to a file: the numbers that it needs, and the file that holds them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.affine import Affine, unsigned
from worker.engine.calibration import Calibration
from worker.engine.calibration.observing import FLOAT
from worker.engine.extent import Extent
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.eligible import EMPTY, NOT_FINITE
from worker.engine.int8.fused_products import fuse_products
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_of, write_placement
from worker.engine.int8.rounding import Rounding, bias_shift, codes_of
from worker.engine.int8.units import Role, Unit, units_of
from worker.engine.int8.weights import Codes, least_scale
from worker.engine.model_file import ModelFile
from worker.engine.moments.moments import Moments
from worker.engine.moments.reading import input_moments
from worker.engine.pass_contract import PassContext


@dataclass(frozen=True)
class Numbers:
    """`maps` by tensor, `codes` and `biases` by unit: what turns a placement into arithmetic."""

    maps: dict[str, Affine]
    codes: dict[str, Codes]
    biases: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    """What is done so that a placement loses little. `samples` is how many inputs are drawn from, and `extent` how far
    they are read.
    """

    rounding: Rounding
    correct_biases: bool
    samples: int
    extent: Extent = field(default_factory=Extent)

    @property
    def reads_inputs(self) -> bool:
        return self.correct_biases or self.rounding.clip or self.rounding.gptq


def tensors_to_calibrate(everything: Placement) -> dict[str, int]:
    """Element type by name of every tensor whose range decides a scale."""
    return {value.name or "": FLOAT for value in dict.fromkeys(everything.roots.values())}


def maps_of(everything: Placement, calibration: Calibration) -> dict[str, Affine]:
    """Unsigned 8-bit maps of every tensor of `everything` that has a range; carriers hand theirs on."""
    found = {name: unsigned(range_.low, range_.high) for name, range_ in calibration.ranges.items()}
    carried = {value.name or "": found[root.name] for value, root in everything.roots.items() if root.name in found}
    return {**found, **carried}


def without_unknown_ranges(everything: Placement, calibration: Calibration) -> Placement:
    """The placement less the units that touch a tensor without a range, and why it has none."""
    roots, unknown = everything.roots, dict[str, set[str]]()
    for unit in everything.in_int8:
        touched = {roots[value].name or "" for value in (*unit.sources, *unit.outputs) if value in roots}
        if without := touched - calibration.ranges.keys():
            unknown[unit.name] = without
    spoilt = [name for name, tensors in unknown.items() if tensors & calibration.not_finite.keys()]
    return everything.without(spoilt, NOT_FINITE).without(unknown.keys() - set(spoilt), EMPTY)


def plain_numbers(placement: Placement, maps: dict[str, Affine], rounding: Rounding) -> Numbers:
    """Every weight rounded to the nearest code: what speed is measured with."""
    coding = _Coding(maps, rounding)
    weighted = [unit for unit in placement.in_int8 if unit.role is Role.WEIGHTED]
    return Numbers(maps, {unit.name: coding.of(unit, None) for unit in weighted})


def accurate_numbers(
    prepared: ModelFile, placement: Placement, maps: dict[str, Affine], accuracy: Accuracy, context: PassContext
) -> Numbers:
    """Weights rounded, and biases corrected, by what the units are fed.

    Raises:
        ModelFails: a call fails.

    """
    weighted = [unit for unit in placement.in_int8 if unit.role is Role.WEIGHTED]
    if not accuracy.reads_inputs:
        return plain_numbers(placement, maps, accuracy.rounding)
    codes, biases, coding = {}, {}, _Coding(maps, accuracy.rounding)
    products = [unit.product for unit in weighted]
    found = input_moments(prepared, products, context, accuracy.samples, accuracy.rounding.gptq, accuracy.extent)
    for unit, (_, moments) in zip(weighted, found, strict=True):
        codes[unit.name] = coding.of(unit, moments)
        bias = bias_of(unit)
        if accuracy.correct_biases and bias is not None:
            biases[unit.name] = bias + bias_shift(unit.weight_values, codes[unit.name], moments)
    return Numbers(maps, codes, biases)


def builder(prepared: ModelFile, numbers: Callable[[Placement], Numbers]) -> Callable[[Placement, Path], ModelFile]:
    """A function that writes a placement of the prepared model into a folder."""

    def build(placement: Placement, folder: Path) -> ModelFile:
        model = read_graph(prepared)
        own = Placement.of(units_of(model), placement.quantized)
        found = numbers(placement)
        write_placement(model, own, found.maps, found.codes, found.biases)
        fuse_products(model)
        return save_graph(model, folder)

    return build


@dataclass
class _Coding:
    """The codes of one weight after the other. What several units read is rounded for the first of them, and stored
    once, unless the bias of another asks for wider steps.
    """

    maps: dict[str, Affine]
    rounding: Rounding
    _known: dict[tuple[ir.Value, int], Codes] = field(default_factory=dict)

    def of(self, unit: Unit, moments: Moments | None) -> Codes:
        bias = None if unit.node.op_type == "MatMul" else bias_of(unit)
        least = least_scale(bias, float(self.maps[unit.sources[0].name or ""].scale))
        key = unit.weight, unit.channel_axis
        known = self._known.get(key)
        if known is not None and bool((known.scale >= least.reshape(-1)).all()):
            return known
        rounding = self.rounding.of(unit.name)
        made = codes_of(unit.weight_values, unit.channel_axis, rounding, moments, least, unit.is_depthwise)
        self._known.setdefault(key, made)
        return made
