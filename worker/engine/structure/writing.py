"""Writing what is left of a user's file: nothing in it that nothing reads any more, and external data where it was."""

from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data, uses_external_data

from worker.engine.graph import initializer_names, nodes_of, replace_field, subgraphs_of
from worker.engine.model_file import ModelFile


def drop_unread(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Take out nodes and constants that something read in the graph `before`, and nothing reads now.

    A constant that is listed as an input as well leaves both lists: a call would have to feed it otherwise.
    """
    read_before = _read(before)
    while unread := read_before - _read(graph):
        stay = [node for node in graph.node if not node.output or any(name not in unread for name in node.output)]
        constants = [tensor for tensor in graph.initializer if tensor.name not in unread]
        if len(stay) == len(graph.node) and len(constants) == len(graph.initializer):
            break
        _shorten(graph.node, stay)
        _shorten(graph.initializer, constants)
    lost = initializer_names(before) - initializer_names(graph)
    _shorten(graph.input, [value for value in graph.input if value.name not in lost])
    gone = _made(before) - _made(graph)
    _shorten(graph.value_info, [value for value in graph.value_info if value.name not in gone])


def write(proto: onnx.ModelProto, source: ModelFile, folder: Path, inside: Collection[str] = ()) -> ModelFile:
    """`proto`, the whole model, under the name of `source`, which it was made of, in the empty `folder`.

    Constants that lay beside `source` do so again, but for those named in `inside`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.path.name
    external = {tensor.name for tensor in source.structure().graph.initializer if uses_external_data(tensor)}
    outside = [tensor for tensor in proto.graph.initializer if tensor.name in external - set(inside)]
    location = next((file.name for file in source.files()[1:]), "")
    for tensor in outside:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        set_external_data(tensor, location)
    if outside:
        onnx.save_model(proto, str(path))
    else:
        path.write_bytes(proto.SerializeToString(deterministic=True))
    return ModelFile(path)


def _read(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in nodes_of(graph) for name in node.input if name}
    names |= {value.name for value in graph.output}
    inner = (subgraph for node in nodes_of(graph) for subgraph in subgraphs_of(node))
    return names | {value.name for subgraph in inner for value in subgraph.output}


def _made(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}


def _shorten(field: object, values: list[object]) -> None:
    if len(values) != len(field):  # type: ignore[arg-type]  # protobuf's repeated fields are untyped here
        replace_field(field, values)
