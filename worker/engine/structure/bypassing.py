"""Files without blocks: a user's own with some of them taken out, and one in which each can be, call by call."""

from collections.abc import Collection
from pathlib import Path

from onnx import GraphProto, NodeProto, TensorProto, helper

from worker.engine.graph import nodes_of, sort_nodes, subgraphs_of, unused_name
from worker.engine.model_file import ModelFile, save_model
from worker.engine.structure.blocks import Block
from worker.engine.structure.writing import drop_unread, write


def bypass(model: ModelFile, blocks: Collection[Block], folder: Path) -> ModelFile:
    """A copy of `model` in the empty `folder` without these; names, inputs, outputs and all other nodes stay.

    A result of the model keeps its name by an Identity.
    """
    proto = model.load()
    instead = {block.result: block.source for block in blocks}
    for name in instead:
        source = name
        while source in instead:
            source = instead[source]
        _give(proto.graph, name, source)
    drop_unread(proto.graph, model.structure().graph)
    return write(proto, model, folder)


def _give(graph: GraphProto, name: str, source: str) -> None:
    """Let all who read `name` read `source`."""
    for node in nodes_of(graph):
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = source
    for inner in (subgraph for node in nodes_of(graph) for subgraph in subgraphs_of(node)):
        for value in inner.output:
            value.name = source if value.name == name else value.name
    if name in {value.name for value in graph.output}:
        maker = next(node for node in graph.node if name in node.output)
        maker.CopyFrom(helper.make_node("Identity", [source], [name], maker.name))


def with_switches(model: ModelFile, blocks: Collection[Block], folder: Path) -> tuple[ModelFile, dict[Block, str]]:
    """A copy with an input more a block, a bool (): while it is false, the block is bypassed. By block its name."""
    proto = model.load()
    taken = {name for node in nodes_of(proto.graph) for name in [*node.input, *node.output]}
    names: dict[Block, str] = {}
    for block in blocks:
        maker = next(node for node in proto.graph.node if block.result in node.output)
        switch, whole = (unused_name(f"{block.result} {what}", taken) for what in ("is kept", "as made"))
        _rename(maker, block.result, whole)
        proto.graph.node.append(helper.make_node("Where", [switch, whole, block.source], [block.result], switch))
        proto.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        names[block] = switch
    sort_nodes(proto.graph)
    return save_model(proto, folder), names


def _rename(node: NodeProto, name: str, wanted: str) -> None:
    for index, made in enumerate(node.output):
        if made == name:
            node.output[index] = wanted
