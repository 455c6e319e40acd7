"""Where a model is quantized at run time: by the recipe, then by what was measured."""

from collections.abc import Collection

import onnx_ir as ir

from worker.engine.dynamic.forms import units_of
from worker.engine.int8.choosing import without_slow
from worker.engine.int8.costs import Costs, Profiles
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition
from worker.engine.int8.units import Unit
from worker.engine.nodes import is_operator
from worker.engine.reasons import EXCLUDED, NOT_ASKED

# The name of the node that quantizes a tensor, by which a profile is read as well.
CONVERSION = "{}/DynamicQuantizeLinear"

# A product is faster in int8 on most machines: what a profile holds against it must be more than noise.
SLOWER = 1.1


class DynamicPlacement(Placement):
    """Units in int8 read and hand out float32."""

    def emits_float(self, unit: Unit) -> bool:
        return True


def everything_dynamic(model: ir.Model, operators: Collection[str], exclude: Collection[str]) -> DynamicPlacement:
    """Every unit that has a dynamic form and that the recipe does not leave out."""
    units, reasons = units_of(model)
    for unit in units:
        if unit.node.op_type not in operators:
            reasons.setdefault(unit.name, NOT_ASKED)
        if unit.name in exclude:
            reasons[unit.name] = EXCLUDED
    return DynamicPlacement.of(units, [unit.name for unit in units if unit.name not in reasons], reasons)


def faster_dynamic(everything: Placement, costs: Costs, profiles: Profiles) -> Placement:
    """Everything but units that take clearly longer in int8, and but those who read a tensor where converting it costs
    more than they save together.

    In int8 a product adds its bias itself; in float that may be a kernel of its own.
    """
    conversions = {time.name: time.milliseconds for time in profiles.in_int8}
    adds = {time.origin: time.milliseconds for time in profiles.in_float if time.operator == "Add"}
    slow: set[str] = set()
    groups = {CONVERSION.format(source): readers for source, readers in readers_of(everything).items()}
    groups |= {unit.name: [unit] for unit in everything.in_int8 if unit.node.op_type == "LSTM"}
    for conversion, units in groups.items():
        before = {unit.name: costs.units[unit.name][0] + _bias_ms(unit, adds) for unit in units}
        after = {unit.name: costs.units[unit.name][1] for unit in units}
        faster = [name for name in before if after[name] <= SLOWER * before[name]]
        together = sum(after[name] for name in faster) + conversions.get(conversion, 0.0)
        if together > SLOWER * sum(before[name] for name in faster):
            faster = []
        slow |= before.keys() - set(faster)
    return without_slow(everything, slow)


def _bias_ms(unit: Unit, adds: dict[str, float]) -> float:
    """Milliseconds of the Add that a product takes over."""
    add = bias_addition(unit) if is_operator(unit.node, "MatMul") else None
    return 0.0 if add is None else adds.get(add.name or "", 0.0)


def readers_of(placement: Placement) -> dict[str, list[Unit]]:
    """The units in int8 by the name of the activation that has to be quantized for them: one that another unit makes is
    made anew when that one is written. An LSTM quantizes by itself, step by step.
    """
    found: dict[str, list[Unit]] = {}
    for unit in placement.in_int8:
        for source in unit.sources if unit.node.op_type != "LSTM" else ():
            found.setdefault(source.name or "", []).append(unit)
    return found
