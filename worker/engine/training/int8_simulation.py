"""A graph that computes in torch what its int8 file will compute in ONNX Runtime, with scales that are learned.

Tensors are rounded where `worker.engine.int8.qdq` writes Q and DQ: weights and what int8 nodes read, what they make
where their kernels write 8 bits, biases to 32 bits, constants of sums and products by their own range. Zero points stay
as they were calibrated, so that 0 stays exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from worker.engine.affine import Affine, unsigned
from worker.engine.int8.grids import GriddedWeight
from worker.engine.int8.placement import Placement
from worker.engine.int8.saturation import Pairs
from worker.engine.int8.units import Role, Unit, clip_bounds
from worker.engine.int8.weights import LARGEST_INT32, Codes
from worker.engine.moments.products import as_rows, from_rows
from worker.engine.nodes import constant
from worker.engine.trainable.arrays import array_from, tensor_from
from worker.engine.trainable.module import Arithmetic, Step
from worker.engine.training.fake_quantization import Rounds, fake_quantize, straight_through

# A scale may leave where it started by this factor. Beyond it something is wrong, and a negative one would be nonsense.
LEAST_RATIO, LARGEST_RATIO = 0.05, 20.0
# Gradients are divided by no less than this share of the median scale of a weight's channels, and no less than this.
LEAST_SHARE, LEAST_SIZE = 1e-2, 1e-5
# float32 rounds a product up by less than this share.
ROUNDING = 2.0**-20
BIAS = 2


@dataclass
class Scale:
    """`start` times `ratio`, which is learned: so a step of the optimizer is a share of the scale, whatever its size.

    `size` is what the gradient of a ratio is divided by: `start`, but for channels that died and tensors that hold next
    to nothing. All gradients are cut to one length together, and of theirs, divided by nearly zero, nothing would be
    left of any other. `most` bounds the ratio where a Clip is left to the integer's own end.
    """

    start: torch.Tensor
    ratio: torch.Tensor
    size: torch.Tensor
    most: float = LARGEST_RATIO

    @classmethod
    def of(cls, start: np.ndarray, most: float = LARGEST_RATIO) -> "Scale":
        """A float scale `()`, `(1,)` or `(C,)`, as float32; the ratio begins at 1."""
        values = np.asarray(start, np.float32)
        sizes = np.asarray(np.maximum(values, max(LEAST_SHARE * float(np.median(values)), LEAST_SIZE)), np.float32)
        begun = tensor_from(values)
        return cls(begun, nn.Parameter(torch.ones_like(begun)), tensor_from(sizes), most)

    @property
    def values(self) -> torch.Tensor:
        """The scale as it is now, float32 of the shape of `start`."""
        return self.start * self.ratio

    def balance(self, count: int, highest: int) -> torch.Tensor:
        """G of Esser et al. over the square of `size`: in steps of the ratio that is their step of the scale."""
        share: torch.Tensor = 1.0 / (np.sqrt(max(1, count * highest)) * self.size.square())
        return share

    def to(self, device: torch.device) -> None:
        self.start, self.size = self.start.to(device), self.size.to(device)
        self.ratio = nn.Parameter(self.ratio.detach().to(device))


@dataclass(frozen=True)
class Activation:
    """A tensor's map: the learned scale, and the zero point as it was calibrated."""

    scale: Scale
    zero_point: int
    highest: int

    def round(self, values: torch.Tensor) -> torch.Tensor:
        """float32 of any shape, rounded to 8 bits; gradients reach the values and the scale."""
        count = values.numel() // max(1, values.shape[0] if values.dim() else 1)
        top = self.highest - self.zero_point
        balance = self.scale.balance(count, max(top, self.zero_point))
        return fake_quantize(values, self.scale.values, Rounds(-self.zero_point, top, balance))


@dataclass(frozen=True)
class Weight:
    """The weight of a unit, or of several that share it, on its grid."""

    gridded: GriddedWeight
    scale: Scale

    def round(self, values: torch.Tensor) -> torch.Tensor:
        """float32 of the weight's shape, rounded to its grid; gradients reach the values and the scale."""
        grid, axis = self.gridded.grid, self.gridded.start.axis
        shape = [-1 if place == axis else 1 for place in range(values.dim())]
        scale = self.scale.values.reshape(shape)
        balance = self.scale.balance(values.numel() // self.scale.start.numel(), grid.highest).reshape(shape)
        pairs = self.gridded.pairs
        limit = None if pairs is None else lambda codes: _limited(codes, pairs, axis)
        return fake_quantize(values, scale, Rounds(grid.lowest, grid.highest, balance, grid.has_zero, limit))

    def by_channel(self) -> torch.Tensor:
        """The scale, float32 `(C,)`."""
        channels = self.gridded.start.scale.shape[0]
        return self.scale.values.detach().expand(channels)


@dataclass
class Int8Simulation(Arithmetic):
    """`units` by the name of their first node; `roots` by tensor the one whose map it uses. Tensors of `made` are
    rounded for all their readers, those of `read` for those of `readers`, nodes in int8, alone.
    """

    units: Mapping[str, Unit]
    weights: Mapping[str, Weight]
    activations: Mapping[str, Activation]
    roots: Mapping[str, str]
    made: frozenset[str]
    read: frozenset[str]
    readers: frozenset[str]
    _settled: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, placement: Placement, maps: Mapping[str, Affine], weights: Mapping[str, GriddedWeight]
    ) -> "Int8Simulation":
        """The placement with these maps by tensor, and weights by unit, as they are; nothing is learned yet. Those that
        are one and the same have one scale.
        """
        roots = placement.roots
        carried = {value for unit in placement.in_int8 if unit.role is Role.CARRIER for value in unit.outputs}
        # What a carrier hands on lies on its source's grid already.
        rounded = [value for value in placement.tensors if value not in carried]
        bounds = _bounds(placement)
        sources = dict.fromkeys(roots[value] for value in rounded)
        activations = {_name(value): _activation(maps[_name(value)], bounds.get(value)) for value in sources}
        own = {id(one): Weight(one, Scale.of(_start(one))) for one in weights.values()}
        return cls(
            units={unit.name: unit for unit in placement.in_int8},
            weights={name: own[id(one)] for name, one in weights.items()},
            activations=activations,
            roots={_name(value): _name(root) for value, root in roots.items()},
            made=frozenset(_name(value) for value in rounded if value in placement.made_in_int8),
            read=frozenset(_name(value) for value in rounded if value not in placement.made_in_int8),
            readers=frozenset(node.name or "" for unit in placement.in_int8 for node in unit.nodes),
        )

    def to(self, device: torch.device) -> None:
        for scale in self.scales().values():
            scale.to(device)

    def scales(self) -> dict[str, Scale]:
        """By a name that no tensor of a file bears by chance. What units share goes by the first of them."""
        found = {f"scale of the weight of {name}": one.scale for name, one in self._first_of_each().items()}
        return found | {f"scale of the tensor {name}": one.scale for name, one in self.activations.items()}

    def maps(self) -> dict[str, Affine]:
        """By tensor, as they are now."""
        return {
            name: Affine(
                np.asarray(array_from(one.scale.values), np.float32),
                np.asarray(one.zero_point, np.int64),
                0,
                one.highest,
            )
            for name, one in self.activations.items()
        }

    def codes(self, values: Mapping[str, np.ndarray]) -> dict[str, Codes]:
        """By unit, from weights by unit, as the scales are now."""
        first = self._first_of_each()
        made = {id(one): one.gridded.codes(values[name], array_from(one.by_channel())) for name, one in first.items()}
        return {name: made[id(one)] for name, one in self.weights.items()}

    def _first_of_each(self) -> dict[str, Weight]:
        """Every weight once."""
        found: dict[int, tuple[str, Weight]] = {}
        for name, one in self.weights.items():
            found.setdefault(id(one), (name, one))
        return dict(found.values())

    def inputs(self, step: Step, values: dict[str, Any]) -> list[torch.Tensor | None]:
        fed = super().inputs(step, values)
        if step.node not in self.readers:
            return fed
        for position, name in enumerate(step.inputs):
            if name in self.read:
                fed[position] = self._rounded(name, values)
        unit = self.units.get(step.node)
        if unit is not None and unit.role is Role.WEIGHTED:
            self._weigh(unit, fed)
        elif unit is not None and unit.role is Role.ARITHMETIC:
            for position, value in enumerate(unit.node.inputs):
                given = fed[position]
                if constant(value) is not None and given is not None:
                    fed[position] = self._constant(_name(value), given)
        return fed

    def outputs(self, step: Step, made: list[Any]) -> list[Any]:
        pairs = zip(step.outputs, made, strict=False)
        return [self._map_of(name).round(one) if name in self.made else one for name, one in pairs]

    def _rounded(self, name: str, values: dict[str, Any]) -> torch.Tensor:
        """Once a call, however many read it."""
        key = f"{name} in 8 bits"
        if key not in values:
            values[key] = self._map_of(name).round(values[name])
        made: torch.Tensor = values[key]
        return made

    def _weigh(self, unit: Unit, fed: list[torch.Tensor | None]) -> None:
        weight, given = self.weights[unit.name], fed[1]
        if given is None:
            return
        fed[1] = weight.round(given)
        bias = fed[BIAS] if len(fed) > BIAS else None
        if bias is None:
            return
        scale = self._map_of(_name(unit.sources[0])).scale.values.detach() * weight.by_channel()
        # The product of two scales of next to nothing is 0, and 0 / 0 no number.
        codes = torch.round(bias.detach().double() / scale).nan_to_num_().clamp_(-LARGEST_INT32, LARGEST_INT32)
        fed[BIAS] = straight_through(bias, codes.to(bias.dtype) * scale)

    def _map_of(self, name: str) -> Activation:
        return self.activations[self.roots[name]]

    def _constant(self, name: str, given: torch.Tensor) -> torch.Tensor:
        """8 bits over its own range; what is not trained is rounded once."""
        if name in self._settled:
            return self._settled[name]
        array = array_from(given)
        affine = unsigned(float(array.min(initial=0)), float(array.max(initial=0)))
        rounded = tensor_from(affine.dequantize(affine.quantize(array))).to(given.device)
        if not given.requires_grad and not isinstance(given, nn.Parameter):
            self._settled[name] = rounded
        return straight_through(given, rounded)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _start(weight: GriddedWeight) -> np.ndarray:
    return weight.start.scale[:1] if weight.shared else weight.start.scale


def _activation(affine: Affine, bound: float | None) -> Activation:
    zero_point, most = int(affine.zero_point), LARGEST_RATIO
    if bound is not None:
        most = max(1.0, bound / ((affine.highest - zero_point) * float(affine.scale)) * (1 - ROUNDING))
    return Activation(Scale.of(affine.scale, most), zero_point, affine.highest)


def _bounds(placement: Placement) -> dict[ir.Value, float]:
    """By tensor, what no code may stand for more than, or the Clip before it would be computed."""
    found: dict[ir.Value, float] = {}
    for unit in placement.in_int8:
        bounds = None if unit.activation is None or unit.activation.op_type != "Clip" else clip_bounds(unit.activation)
        if bounds is not None and np.isfinite(bounds[1]):
            found[unit.output] = bounds[1]
    return found


def _limited(codes: torch.Tensor, pairs: Pairs, axis: int) -> torch.Tensor:
    rows = pairs.limited(as_rows(array_from(codes), axis))
    return tensor_from(from_rows(rows, tuple(codes.shape), axis)).to(codes.device)
