"""From a file to a `ModelProto`, weights beside the file unread."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from worker.engine.inspection import formats, walk
from worker.engine.model_faults import (
    CorruptModel,
    EmptyFile,
    ExcessiveNesting,
    NoInputs,
    NoOutputs,
    NothingComputed,
    NotOnnx,
    ObsoleteOpset,
    OversizedProtobuf,
)

MAX_PROTOBUF_BYTES = (2 << 30) - 1
OLDEST_OPSET = 7
DEFAULT_DOMAINS = ("", "ai.onnx")
COPY_AGAIN = "Export the model again, or copy the file again: it was probably cut short."


def read_proto(path: Path) -> ModelProto:
    """The model as its file holds it; external data is left where it is.

    Raises:
        UserFault: the file is empty, something else, cut short, or holds no graph that could be called.

    """
    head = formats.read_head(path)
    if not head:
        raise EmptyFile("The file has no bytes.", "Check the path that was uploaded, and upload the file again.")
    recognized = formats.recognize(head)
    if recognized:
        raise NotOnnx(f"The file looks like {recognized[0]}.", recognized[1])
    if not formats.may_be_onnx(head):
        raise NotOnnx(f"The file begins with {head[:8]!r}, as no ONNX model does.", formats.EXPORT)
    size = path.stat().st_size
    if size > MAX_PROTOBUF_BYTES:
        raise OversizedProtobuf(
            f"The .onnx file has {size:,} bytes.",
            "Save the weights as external data and upload a tar of the model and its data file.",
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise ExcessiveNesting(
                "The graphs are nested deeper than protobuf reads: about thirty levels.",
                "Flatten the control flow before exporting.",
            ) from error
        if "alloc failed" in str(error).lower():
            raise MemoryError(str(error)) from error
        raise CorruptModel(f"The protobuf message cannot be read: {error}.", COPY_AGAIN) from error
    check_graph(model)
    check_names(model)
    return model


def check_graph(model: ModelProto) -> None:
    """Raises UserFault unless there is a graph that takes something, computes and returns something."""
    if not model.HasField("graph") or not model.opset_import:
        raise CorruptModel("The message holds no graph, or names no operator set.", COPY_AGAIN)
    opset = default_opset(model)
    if opset is not None and opset < OLDEST_OPSET:
        raise ObsoleteOpset(
            f"The model uses opset {opset}; ONNX Runtime supports {OLDEST_OPSET} and newer.",
            "Raise it with onnx.version_converter.convert_version(model, 17), or export it again.",
        )
    graph = model.graph
    if not graph.output:
        raise NoOutputs("The graph declares no outputs.", "Name the values to return when exporting.")
    if not graph.node:
        raise NothingComputed("The graph has no nodes.", "Export the network itself, not only its weights.")
    initializers = {tensor.name for tensor in graph.initializer}
    initializers.update(tensor.values.name for tensor in graph.sparse_initializer)
    if all(value.name in initializers for value in graph.input):
        raise NoInputs(
            "The graph declares no inputs besides its weights: every call would return the same.",
            "Export the network with its inputs as arguments, not as constants.",
        )


def check_names(model: ModelProto) -> None:
    """Raises CorruptModel unless every name is UTF-8: where one is not, protobuf hands out bytes in place of text."""
    for name in _names(model):
        if not isinstance(name, str):
            raise CorruptModel(f"The name {name[:100]!r} is not UTF-8.", COPY_AGAIN)


def _names(model: ModelProto) -> Iterator[str | bytes]:
    for entry in model.opset_import:
        yield entry.domain
    for function in model.functions:
        yield from (function.domain, function.name, *function.input, *function.output, *function.attribute)
    for graph in walk.all_graphs(model):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for node in walk.nodes(model):
        yield from (node.domain, node.op_type, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for tensor in walk.tensors(model):
        yield tensor.name
        for item in tensor.external_data:
            yield from (item.key, item.value)


def default_opset(model: ModelProto) -> int | None:
    """Version of the default operator set, or None where the model imports only others."""
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    return max(versions, default=None)
