"""Which inputs and outputs of a node may be float16, by the schema of its operator.

https://onnx.ai/onnx/operators/ for the standard's; the runtime knows those of its own domain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx
import onnx_ir as ir
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from worker.engine.graph import RUNTIME_DOMAIN, STANDARD_DOMAINS
from worker.engine.nodes import is_operator

SINGLE, HALF = "tensor(float)", "tensor(float16)"
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# Schemas allow float16, and something would be lost that rounding to 11 bits does not explain.
IN_FLOAT32 = {
    "Dropout": "draws at random, by its seed, and would draw otherwise",
    "Multinomial": "draws at random, by its seed, and would draw otherwise",
    "TopK": "what is equal in float16 is told apart in float32",
    "CumSum": "sums up a whole axis, in the type of its input",
    "RoiAlign": "reads coordinates",
}
NO_HALF = "its operator has no float16"
# Coordinates as well: operator and input.
FLOAT32_INPUTS = frozenset({("Resize", 1)})
# Their element type is an attribute's.
TYPED_BY_ATTRIBUTE = ("Cast", "Constant", "ConstantOfShape")


@dataclass(frozen=True)
class Half:
    """Positions, among inputs and outputs that are float32, that may be float16."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Parameter:
    """Of an operator. `variable` names the type that it shares with others, `types` are those allowed."""

    variable: str
    types: frozenset[str]


@dataclass(frozen=True)
class Signature:
    """What goes into an operator and what comes out."""

    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]


def half_of(node: ir.Node, opsets: Mapping[str, int]) -> Half:
    """Nothing where the node has to compute in float32, or where not enough is known of it."""
    signature = _signature(node.domain, node.op_type, _version(node, opsets))
    if signature is None or is_operator(node, *IN_FLOAT32, *TYPED_BY_ATTRIBUTE):
        return Half()
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if not all(isinstance(value.type, ir.TensorType) for value in values):
        return Half()
    if _holds_graphs(node):
        return Half()
    inputs = {
        position: parameter.variable
        for position, parameter in _float32(node.inputs, signature.inputs)
        if HALF in parameter.types and (node.op_type, position) not in FLOAT32_INPUTS
    }
    bound = set(inputs.values())
    outputs = [
        (position, parameter.variable)
        for position, parameter in _float32(node.outputs, signature.outputs)
        if HALF in parameter.types
    ]
    if not all(variable in bound for _, variable in outputs):
        # An attribute says what comes out, or a default.
        return Half()
    return Half(frozenset(inputs), frozenset(position for position, _ in outputs))


def reason_against(node: ir.Node, half: Half) -> str | None:
    """Why a node that reads or makes float32 stays in it; None where it need not (`half_of`), or does neither."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if half.inputs or half.outputs or all(value.dtype != ir.DataType.FLOAT for value in values):
        return None
    if is_operator(node, *IN_FLOAT32):
        return IN_FLOAT32[node.op_type]
    return None if is_operator(node, *TYPED_BY_ATTRIBUTE) else NO_HALF


def complete_types(model: ir.Model) -> None:
    """Give tensors the types that schemas say they have, where inference gave none: it knows few contrib operators."""
    for node in model.graph.all_nodes():
        signature = None
        # What branches and loops hand over, of any types, bears one type's name in their schemas.
        if any(value.name and value.type is None for value in node.outputs) and not _holds_graphs(node):
            signature = _signature(node.domain, node.op_type, _version(node, model.opset_imports))
        if signature is None:
            continue
        types = {SINGLE: ir.TensorType(ir.DataType.FLOAT)} | {
            parameter.variable: value.type
            for _, value, parameter in _matched(node.inputs, signature.inputs)
            if value.type is not None
        }
        for _, value, parameter in _matched(node.outputs, signature.outputs):
            if value.type is None:
                value.type = types.get(parameter.variable)


def float_tensors(model: ir.Model) -> dict[str, int]:
    """Element type by name of every tensor of float32 or float16, no constant, that enters or leaves a node of the main
    graph: those as well whose types schemas alone tell (`complete_types`).
    """
    complete_types(model)
    values = [value for node in model.graph for value in (*node.inputs, *node.outputs) if value is not None]
    return {
        value.name: int(value.type.dtype)
        for value in values
        if value.name and value.const_value is None and isinstance(value.type, ir.TensorType) and value.dtype in FLOATS
    }


def _holds_graphs(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in _attributes(node))


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return list(node.attributes.values())


def _version(node: ir.Node, opsets: Mapping[str, int]) -> int:
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    return opsets.get(domain, 1)


def _float32(values: Sequence[ir.Value | None], parameters: tuple[Parameter, ...]) -> list[tuple[int, Parameter]]:
    """Positions of float32 tensors, with the parameters that they stand for."""
    matched = _matched(values, parameters)
    return [(position, parameter) for position, value, parameter in matched if value.dtype == ir.DataType.FLOAT]


def _matched(
    values: Sequence[ir.Value | None], parameters: tuple[Parameter, ...]
) -> list[tuple[int, ir.Value, Parameter]]:
    """Positions and values that are given, with the parameters that they stand for: the last may take several."""
    last = len(parameters) - 1
    return [
        (position, value, parameters[min(position, last)])
        for position, value in enumerate(values)
        if value is not None and value.name and parameters
    ]


@lru_cache(maxsize=1024)
def _signature(domain: str, operator: str, version: int) -> Signature | None:
    """None for operators that nobody here knows: a user's own, functions of the model."""
    if domain == RUNTIME_DOMAIN:
        found = [schema for schema in _runtime_schemas() if schema.name == operator and schema.since_version <= version]
        schema = max(found, key=lambda one: one.since_version, default=None)
        return None if schema is None else _read(schema, "typeStr")
    try:
        return _read(onnx.defs.get_schema(operator, version, "" if domain in STANDARD_DOMAINS else domain), "type_str")
    except onnx.defs.SchemaError:
        return None


@lru_cache(maxsize=1)
def _runtime_schemas() -> list[Any]:
    return [schema for schema in runtime.get_all_operator_schema() if schema.domain == RUNTIME_DOMAIN]


def _read(schema: Any, type_field: str) -> Signature:
    allowed = {one.type_param_str: frozenset(one.allowed_type_strs) for one in schema.type_constraints}

    def read(parameters: Any) -> tuple[Parameter, ...]:
        names = [getattr(one, type_field) for one in parameters]
        return tuple(Parameter(name, allowed.get(name, frozenset([name]))) for name in names)

    return Signature(read(schema.inputs), read(schema.outputs))
