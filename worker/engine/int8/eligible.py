"""Which units may run in int8 at all, before anything is measured, and why others may not."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from worker.engine.int8.placement import Placement
from worker.engine.int8.units import Role, Unit
from worker.engine.nodes import integer, is_operator
from worker.engine.reasons import EXCLUDED, NO_ACTIVATION, NOT_ASKED, counted

# Slower in 8 bits on every x86 that was measured, by factors of 4 to 20, for one shape or another.
NEVER = {
    "Softmax": "Softmax in int8 is slower than in float",
    "AveragePool": "AveragePool in int8 is slower than in float",
}
GROUPED = "grouped convolution in int8 is slower than in float"
ATTENTION = (
    "a transformer: only what has weights is quantized; attention scores, Softmax, LayerNormalization and residual "
    "sums lose too much in 8 bits"
)
PATCHES = "a transformer's only convolution: a small share of the work, and every layer behind it reads what it makes"
NOT_FINITE = "NaN or infinity passed through it"
EMPTY = "what it reads or makes was empty in every sample"


# Of nodes with weights that have no form in int8 with ranges given, why not.
WITHOUT_FORM = {
    "Conv": "an int8 kernel there is for one to three axes of space, and constant weights and biases",
    "ConvTranspose": "it has no int8 kernel",
    "Gemm": "an int8 kernel there is for a constant matrix and row, and alpha and beta of 1",
    "MatMul": "an int8 kernel there is for one matrix, not for a stack of them",
    "LSTM": "its int8 kernel takes ranges at run time: `quantize_dynamic` has it",
    "GRU": "it has no int8 kernel",
    "RNN": "it has no int8 kernel",
    "Attention": "fused, it has no int8 kernel with ranges given; `fuse_transformers: false` leaves it in parts",
}
PRODUCTS = ("Conv", "Gemm", "MatMul")
UNKNOWN_TYPE = "the type of what it reads or makes is not known"
COMPUTED = "its weight is computed, not a constant"
ON_THE_LEFT = "its constant stands on the left"
VECTOR = "its weight is a vector"


def eligible(units: list[Unit], transformer: bool, operators: list[str] | None, exclude: Iterable[str]) -> Placement:
    """Every unit in int8 but for those with a reason against it. `operators`, where given, is the only rule."""
    excluded = set(exclude)
    reasons: dict[str, str] = {}
    makes_patches = transformer and sum(unit.node.op_type == "Conv" for unit in units) == 1
    for unit in units:
        reason = _against(unit, transformer, makes_patches) if operators is None else None
        if operators is not None and unit.node.op_type not in operators:
            reason = NOT_ASKED
        if unit.name in excluded:
            reason = EXCLUDED
        if reason is not None:
            reasons[unit.name] = reason
    return Placement.of(units, [unit.name for unit in units if unit.name not in reasons], reasons)


def with_those_without_form(placement: Placement, model: ir.Model) -> Placement:
    """The same, and among its units every node of the main graph that has weights and no int8 form, with the reason."""
    known = {unit.node: unit for unit in placement.units}
    units, reasons = [], dict(placement.reasons)
    for node in model.graph:
        if node in known:
            units.append(known[node])
        elif node.op_type in WITHOUT_FORM:
            left = Unit(node, Role.FLOAT)
            units.append(left)
            reasons[left.name] = _without_form(node)
    return replace(placement, units=units, reasons=reasons)


def _without_form(node: ir.Node) -> str:
    """What an int8 kernel there is for, or what this node has instead."""
    if not is_operator(node, *PRODUCTS):
        return WITHOUT_FORM[node.op_type]
    types = {value.dtype for value in (node.inputs[0], node.outputs[0]) if value is not None}
    if None in types:
        return UNKNOWN_TYPE
    others = sorted(kind.numpy().name for kind in types - {None, ir.DataType.FLOAT} if kind is not None)
    if others:
        return f"it computes in {others[0]}"
    left, right = (None if value is None else value.const_value for value in node.inputs[:2])
    if left is not None:
        return ON_THE_LEFT if right is None else NO_ACTIVATION
    if right is None:
        return COMPUTED
    return VECTOR if len(right.shape) == 1 else WITHOUT_FORM[node.op_type]


def reasons_in_words(placement: Placement) -> list[str]:
    """One sentence a reason, with how many nodes of which operator it keeps in float."""
    operators = {unit.name: unit.node.op_type for unit in placement.units}
    counts: dict[str, Counter[str]] = {}
    for name, reason in placement.reasons.items():
        if name in operators:
            counts.setdefault(reason, Counter())[operators[name]] += 1
    return [f"In float: {counted(found)} ({reason})." for reason, found in counts.items()]


def _against(unit: Unit, transformer: bool, makes_patches: bool) -> str | None:
    """`makes_patches`: a convolution of this graph has no other beside it, in a transformer."""
    if unit.node.op_type in NEVER:
        return NEVER[unit.node.op_type]
    if unit.node.op_type == "Conv":
        shape = unit.weight.shape
        if integer(unit.node, "group", 1) > 1 and shape is not None and shape[1] != 1:
            return GROUPED
        if makes_patches:
            return PATCHES
    return ATTENTION if transformer and unit.role is not Role.WEIGHTED else None
