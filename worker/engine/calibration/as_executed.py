"""The graph as the runtime executes it, with the tensors of a model where it keeps them.

ONNX Runtime computes convolutions, and much of what stands between them, on blocks of channels: as many as a register
of the processor holds take the place of one. What others read is turned into the layout of the file by a ReorderOutput.
Who asks for no order reads in front of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import onnx
from onnx import helper, numpy_helper

from worker.engine.calibration.magnitudes import without_nan
from worker.engine.graph import attribute_of, nodes_of
from worker.engine.model_file import ModelFile, save_model
from worker.engine.optimized import write_optimized
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import ALL

BLOCKED_DOMAIN = "com.microsoft.nchwc"
# Blocks are of 8 or 16 channels. Of other multiples the last block is filled up with what belongs to no tensor.
MOST_LANES = 16


@dataclass(frozen=True)
class AsExecuted:
    """`model` is optimized for this machine: its sessions need not optimize. Its constants lie in `folder`.

    `blocked` gives the names under which it has the elements of tensors in blocks of channels, each once, in another
    order: `(N, C, H, W)`, a multiple of 16 channels. Every other tensor goes by its own name.
    `rectified` are those that a Relu made, or a Clip from 0 upwards. `without_nan` is what the function
    of that name tells.
    """

    model: onnx.ModelProto
    folder: Path
    blocked: dict[str, str]
    rectified: set[str]
    without_nan: dict[str, frozenset[str]]


def as_executed(model: ModelFile, tensors: dict[str, int], context: PassContext) -> AsExecuted:
    """`tensors` (element type by name) are all computed: no fusion swallows one.

    Raises:
        ModelFails: the runtime refuses the model.

    """
    exposed = model.load()
    own = {output.name for output in exposed.graph.output}
    rectified, settled = _rectified(exposed.graph), without_nan(exposed.graph, tensors)
    expose(exposed, tensors)
    with TemporaryDirectory(dir=context.scratch) as temporary:
        file = save_model(exposed, Path(temporary))
        del exposed
        # Constants stay in a file of their own: what is added to the graph then costs no copy of them.
        target = Path(mkdtemp(dir=context.scratch)) / "as_executed" / "model.onnx"
        optimized = write_optimized(file, target, context.threads, ALL, constants_apart=True).structure()
    graph = optimized.graph
    _drop(graph.output, lambda output: output.name not in own)
    blocked = {
        node.output[0]: node.input[0]
        for node in graph.node
        if (node.domain, node.op_type) == (BLOCKED_DOMAIN, "ReorderOutput")
        and node.output[0] in tensors
        and attribute_of(node, "channels", 1) % MOST_LANES == 0
    }
    unread = blocked.keys() - own.union(*(node.input for node in nodes_of(graph)))
    _drop(graph.node, lambda node: node.output[0] in unread)
    return AsExecuted(optimized, target.parent, blocked, rectified, settled)


def expose(model: onnx.ModelProto, tensors: dict[str, int]) -> None:
    """Make outputs of all `tensors` (element type by name) that are neither inputs nor outputs."""
    declared = {value.name for value in [*model.graph.output, *model.graph.input]}
    for name, element_type in tensors.items():
        if name not in declared:
            model.graph.output.append(helper.make_tensor_value_info(name, element_type, None))


def _rectified(graph: onnx.GraphProto) -> set[str]:
    zeros = {
        tensor.name
        for tensor in graph.initializer
        if math.prod(tensor.dims) == 1 and not numpy_helper.to_array(tensor).any()
    }
    return {
        node.output[0]
        for node in graph.node
        if node.op_type == "Relu" or (node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in zeros)
    }


def _drop(field: Any, unwanted: Callable[[Any], bool]) -> None:
    for index in reversed(range(len(field))):
        if unwanted(field[index]):
            del field[index]
