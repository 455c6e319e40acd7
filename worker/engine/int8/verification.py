"""Whether what was planned as int8 ran as int8, and what was planned in float in float."""

from dataclasses import dataclass

from worker.engine.int8.placement import Placement
from worker.engine.int8.units import Role, Unit
from worker.engine.profiling import NodeTime

# What the runtime may have in the place of a quantized unit; carriers run under their own names, on 8 bits.
MOVED_AWAY = frozenset(
    (
        *("Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Add", "Mul", "Sigmoid", "QuickGelu"),
        *("LeakyRelu", "GlobalAveragePool", "AveragePool", "Softmax"),
    )
)


@dataclass(frozen=True)
class Executed:
    """A planned unit and the kernel that ran in its place."""

    name: str
    operator: str


def computes(unit: Unit) -> bool:
    """Whether its kernel has an int8 form of its own, which a profile shows; others move values as they are."""
    return unit.role is not Role.CARRIER and unit.node.op_type != "Concat"


def not_fused(placement: Placement, times: list[NodeTime]) -> list[Executed]:
    """Units planned as int8 that the profile of the finished file shows in float."""
    planned = {name: unit.name for unit in placement.in_int8 if computes(unit) for name in unit.kernel_names}
    return [
        Executed(planned[time.origin], time.operator)
        for time in times
        if time.kind == "float" and time.operator in MOVED_AWAY and time.origin in planned
    ]


def fused_unasked(placement: Placement, times: list[NodeTime]) -> list[Executed]:
    """Units planned in float that run in int8: the runtime fuses what stands between a DQ and a Q, planned or not."""
    left = {
        name: unit.name
        for unit in placement.units
        if unit.name not in placement.quantized
        for name in unit.kernel_names
    }
    return [Executed(left[time.origin], time.operator) for time in times if time.kind == "int8" and time.origin in left]
