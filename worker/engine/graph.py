"""Reading a graph, and giving a rewritten one back the face that its user knows."""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from worker.engine.inspection import walk

Dimension = int | str | None
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
RUNTIME_DOMAIN = "com.microsoft"
# The version of the file format from which on an initializer that is an input as well is no more than its default.
OVERRIDABLE_SINCE = 4


@dataclass(frozen=True)
class TensorFace:
    """What a caller sees of one input or output: dtype as numpy names it, or `string`; shape None: rank unknown.

    One entry an axis: a number, a symbolic name, or None where it has neither.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None


class OfOperator(Protocol):
    """A node, of onnx or of onnx-ir."""

    @property
    def op_type(self) -> str: ...

    @property
    def domain(self) -> str: ...


class UnsupportedValue(ValueError):
    """An input or output is no tensor."""


def qualified(node: OfOperator) -> str:
    """Its operator: `Conv`, or `com.microsoft.Gelu` outside the standard domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def initializer_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the weights, sparse ones included."""
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def values_to_feed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """What a call must feed: inputs that are no initializers as well (files before IR 4 list those too)."""
    weights = initializer_names(graph)
    return [value for value in graph.input if value.name not in weights]


def inputs_of(model: onnx.ModelProto) -> list[TensorFace]:
    """What a call must feed.

    Raises:
        UnsupportedValue: an input is a sequence, a map or optional.

    """
    return [face_of(value) for value in values_to_feed(model.graph)]


def face_of(value: onnx.ValueInfoProto) -> TensorFace:
    """A declared input, output or annotated value as a caller sees it.

    Raises:
        UnsupportedValue: the value is no tensor.

    """
    if value.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedValue(f"{value.name!r} is no tensor")
    return TensorFace(value.name, dtype_name(value.type.tensor_type.elem_type), shape_of(value.type))


def shape_of(declared: onnx.TypeProto) -> tuple[Dimension, ...] | None:
    """One entry an axis; None where the rank is unknown, or what is declared is no tensor."""
    tensor = declared.tensor_type
    return tuple(dimension_of(one) for one in tensor.shape.dim) if tensor.HasField("shape") else None


def dimension_of(declared: onnx.TensorShapeProto.Dimension) -> Dimension:
    """0 is a size like any other: ONNX Runtime takes nothing else there."""
    if declared.WhichOneof("value") == "dim_value":
        # Some exporters write an unknown axis as -1.
        return int(declared.dim_value) if declared.dim_value >= 0 else None
    return str(declared.dim_param) or None


def dtype_name(element_type: int) -> str:
    """`float32`, `int64`, `bool`, `bfloat16`, ..., or `string`."""
    if element_type == onnx.TensorProto.STRING:
        return "string"
    name: str = np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name
    return name


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set; 1 where the file names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=1)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs_of(node):
            yield from nodes_of(subgraph)


def unused_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or a name made from it, that is not among those `taken`; from then on it is."""
    while wanted in taken:
        wanted = f"{wanted}_"
    taken.add(wanted)
    return wanted


def attribute_of(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nameless nodes a name, and make every name unique: tools address nodes by name.

    A name that the file gives stays with the first node that has it there.
    """
    nodes = list(nodes_of(model.graph))
    given = {node.name for node in nodes if node.name}
    taken = set(given)
    for number, node in enumerate(nodes):
        if node.name in given:
            given.remove(node.name)
            continue
        name = node.name or f"{node.op_type}_{number}"
        while name in taken:
            name = f"{name}_{number}"
        node.name = name
        taken.add(name)


def computes_the_same(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    """Whether two graphs hold the same nodes, names of nodes aside, the same opsets and the same constants by name."""

    def face(
        model: onnx.ModelProto,
    ) -> tuple[list[bytes], set[tuple[str, int]], list[tuple[str, int, tuple[int, ...]]]]:
        nodes = []
        for node in model.graph.node:
            nameless = onnx.NodeProto()
            nameless.CopyFrom(node)
            for inner in [nameless, *(inner for graph in subgraphs_of(nameless) for inner in nodes_of(graph))]:
                inner.name, inner.doc_string = "", ""
                replace_field(inner.attribute, sorted(inner.attribute, key=lambda attribute: attribute.name))
            nodes.append(nameless.SerializeToString(deterministic=True))
        constants = [(tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer]
        constants += [
            (sparse.values.name, sparse.values.data_type, tuple(sparse.dims))
            for sparse in model.graph.sparse_initializer
        ]
        used = {node.domain for node in nodes_of(model.graph)} & STANDARD_DOMAINS
        opsets = {
            (entry.domain, entry.version) for entry in model.opset_import if used and entry.domain in STANDARD_DOMAINS
        }
        return sorted(nodes), opsets, sorted(constants)

    return face(first) == face(second)


def subgraphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node holds itself: branches, bodies of loops. One without names stands for an attribute of
    another kind.
    """
    return [graph for attribute in node.attribute for graph in [attribute.g, *attribute.graphs]]


def restore_face(model: onnx.ModelProto, original: onnx.ModelProto, keep_io: bool = True) -> None:
    """Undo what tools do to a file beyond its nodes.

    Inputs and outputs get their declared names, dtypes and axes back (with `keep_io`), metadata, producer and
    documentation are the user's, and operator sets that no node uses are dropped: a runtime refuses a file that
    declares a newer one than it knows.
    """
    constants = {tensor.name for tensor in original.graph.initializer}
    if keep_io:
        replace_field(model.graph.input, [value for value in original.graph.input if value.name not in constants])
        replace_field(model.graph.output, original.graph.output)
    declared = {value.name: value.type for value in original.graph.output}
    for value in model.graph.output:
        if not value.HasField("type") and value.name in declared:  # onnx-ir has none for maps
            value.type.CopyFrom(declared[value.name])
    model.graph.name = original.graph.name
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(model, field, getattr(original, field))
    model.graph.doc_string = original.graph.doc_string
    replace_field(model.metadata_props, original.metadata_props)
    _declare_used_opsets(model)
    sort_nodes(model.graph)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Order the nodes so that each follows what it reads, as the format demands, and otherwise as they are.

    Raises:
        ValueError: the graph has a cycle.

    """
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    readers: dict[int, list[int]] = {index: [] for index in range(len(graph.node))}
    missing = []
    for index, node in enumerate(graph.node):
        sources = {made_by[name] for name in names_read(node) if name in made_by} - {index}
        missing.append(len(sources))
        for source in sources:
            readers[source].append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) != len(graph.node):
        raise ValueError("the graph has a cycle")
    if order != sorted(order):
        replace_field(graph.node, [graph.node[index] for index in order])


def names_read(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, those that its subgraphs capture included."""
    inner = {name for subgraph in subgraphs_of(node) for nested in subgraph.node for name in names_read(nested)}
    inner |= {value.name for subgraph in subgraphs_of(node) for value in subgraph.output}
    return {name for name in node.input if name} | inner


def constants_to_initializers(model: onnx.ModelProto) -> int:
    """Take initializers off the list of inputs, where old files (IR below 4) keep them. Returns how many there were.

    From IR 4 on a caller may override such an initializer, so nothing may fold it. PyTorch's older exporter lists every
    weight so where it is told to keep initializers as inputs, and a file does not say which of them anybody means to
    feed: left as they are, weights would never be optimized. `inputs_with_default` names what a caller loses.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    listed = len(model.graph.input) - len(kept)
    replace_field(model.graph.input, kept)
    model.ir_version = max(model.ir_version, OVERRIDABLE_SINCE)
    return listed


def inputs_with_default(model: onnx.ModelProto) -> list[str]:
    """Names of the inputs that a call may leave out, as an initializer holds their value: none before IR 4."""
    constants = initializer_names(model.graph) if model.ir_version >= OVERRIDABLE_SINCE else set()
    return [value.name for value in model.graph.input if value.name in constants]


def make_dense(model: onnx.ModelProto, folder: Path) -> None:
    """Write sparse constants as dense ones; `folder` holds the external data.

    onnx-ir reads none of them. Of a model that was inspected they hold no more than `inspection.tensors` lets pass.
    """
    for graph in walk.all_graphs(model):
        graph.initializer.extend(_dense(sparse, folder) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for node in walk.nodes(model):
        for attribute in node.attribute:
            if qualified(node) == "Constant" and attribute.name == "sparse_value":
                attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor, folder)))


def _dense(sparse: onnx.SparseTensorProto, folder: Path) -> onnx.TensorProto:
    """Where a value stands is told by one number, or by one for each axis: `SparseTensorProto` in onnx.proto."""
    values, places = (numpy_helper.to_array(part, str(folder)) for part in (sparse.values, sparse.indices))
    shape = tuple(sparse.dims)
    if places.ndim > 1:
        places = np.ravel_multi_index(tuple(places.T), shape)
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[places] = values
    return numpy_helper.from_array(dense.reshape(shape), sparse.values.name)


def replace_field(field: object, values: object) -> None:
    """Set a repeated field; `values` may be taken from the field itself."""
    copies = list(values)  # type: ignore[call-overload]  # protobuf's repeated fields are untyped here
    del field[:]  # type: ignore[attr-defined]  # as above
    field.extend(copies)  # type: ignore[attr-defined]  # as above


def _declare_used_opsets(model: onnx.ModelProto) -> None:
    """No others, but for the standard one; and the runtime's own operators, which its tools use without saying so."""
    used = {node.domain for node in nodes_of(model.graph)} | STANDARD_DOMAINS
    for function in model.functions:
        used |= {node.domain for node in function.node}
    replace_field(model.opset_import, [entry for entry in model.opset_import if entry.domain in used])
    if RUNTIME_DOMAIN in used - {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
