"""What each piece of a graph costs in float and in int8 on this machine, read off two profiles of the whole."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from worker.engine.int8.placement import Placement
from worker.engine.int8.units import Unit
from worker.engine.nodes import CONV_RANK, rank
from worker.engine.profiling import NodeTime, origin_of

# A conversion reads and writes a tensor once; next to a convolution the runtime also changes the layout on each side.
LAYOUT_PASSES = 3.0
# Where no QuantizeLinear was seen: what one costs on any machine of the last ten years, within a factor of two.
DEFAULT_NS_PER_ELEMENT = 0.4


@dataclass(frozen=True)
class Profiles:
    """The kernels of one graph: in float, and with everything in int8 that has such a kernel."""

    in_float: list[NodeTime]
    in_int8: list[NodeTime]


@dataclass(frozen=True)
class Costs:
    """In milliseconds, by name: of each unit in float and in int8, and of converting each tensor that units meet."""

    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    conversions: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, everything: Placement, profiles: Profiles) -> "Costs":
        """Of `everything`, which the second profile is of."""
        units = {
            unit.name: (_time_of(unit, profiles.in_float), _time_of(unit, profiles.in_int8))
            for unit in everything.units
        }
        tensors = dict.fromkeys(value for unit in everything.in_int8 for value in (*unit.sources, *unit.outputs))
        convolutions = [unit for unit in everything.in_int8 if unit.node.op_type == "Conv"]
        laid_out = {value for unit in convolutions for value in (*unit.sources, *unit.outputs)}
        ns, counts = _conversion_ns(profiles.in_int8), _element_counts(profiles.in_float, profiles.in_int8)
        conversions = {value.name or "": _conversion_ms(value, counts, ns, value in laid_out) for value in tensors}
        return cls(units, conversions)


def _conversion_ms(value: ir.Value, counts: Mapping[str, int], ns: float, by_convolution: bool) -> float:
    producer = value.producer()
    if producer is None:
        count = _elements_of(value)
    else:
        count = max(counts.get(origin_of(name or ""), 0) for name in (value.name, producer.name))
    passes = LAYOUT_PASSES if by_convolution or rank(value) == CONV_RANK else 1.0
    return count * ns * passes / 1e6


def _time_of(unit: Unit, times: list[NodeTime]) -> float:
    """Milliseconds of the kernels that stand for the unit."""
    names = set(unit.kernel_names)
    return sum(time.milliseconds for time in times if time.kind != "conversion" and time.origin in names)


def _conversion_ns(in_int8: list[NodeTime]) -> float:
    """Nanoseconds an element of a QuantizeLinear."""
    seen = [time for time in in_int8 if time.operator == "QuantizeLinear" and time.elements]
    elements = sum(time.elements for time in seen)
    return sum(time.milliseconds for time in seen) * 1e6 / elements if elements else DEFAULT_NS_PER_ELEMENT


def _element_counts(*profiles: list[NodeTime]) -> dict[str, int]:
    """Elements that each kernel returned, by the name that it stands for."""
    return {time.origin: time.elements for times in profiles for time in times}


def _elements_of(value: ir.Value) -> int:
    """Of an input of the graph, which no kernel returns; an axis of unknown size is mostly a batch of one."""
    return math.prod(size for size in value.shape if isinstance(size, int)) if value.shape is not None else 0
