"""The dependency graph: what is tied to what, from the operators of a model, each of which wires its operands.

As in G. Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, arXiv:2301.12900, but by single positions of
axes: concatenations, heads and partial reads then need no offsets. An operator that is not known here freezes all that
it reads.
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from worker.engine.graph import STANDARD_DOMAINS, constants_to_initializers, name_nodes, qualified
from worker.engine.graph_file import graph_of
from worker.engine.model_file import ModelFile
from worker.engine.nodes import is_operator
from worker.engine.structure.attention import attention
from worker.engine.structure.carrying import CARRIERS
from worker.engine.structure.channel_blocks import depth_to_space, group_normalization, space_to_depth
from worker.engine.structure.dimensions import TRACED, dimensions_in
from worker.engine.structure.products import convolution, gemm, matmul, transposed_convolution
from worker.engine.structure.recurrence import GATES, recurrent
from worker.engine.structure.reshaping import reshape
from worker.engine.structure.sizes import Sizes
from worker.engine.structure.wiring import Wiring

UNKNOWN = "operator {} reads it"
CAPTURED = "it is read inside control flow"
RESULT = "it is a result of the model"
COUNTED = "its size is computed with"
# A choice between ways rests on others: it is made again while anything changes, as often as this.
MOST_ROUNDS = 6
# And what nothing is declared of, which may be.
WHOLE = (ir.DataType.INT64, ir.DataType.INT32, None)

RULES: dict[str, Callable[[ir.Node, Wiring], None]] = {
    **CARRIERS,
    **dict.fromkeys(GATES, recurrent),
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "Reshape": reshape,
    "Flatten": reshape,
    "GroupNormalization": group_normalization,
    "Attention": attention,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}


def read_graph(model: ModelFile) -> ir.Model:
    """The whole graph as the file has it, every node named, its nodes in the file's order."""
    loaded = model.load()
    constants_to_initializers(loaded)
    name_nodes(loaded)
    return graph_of(loaded)


def propagate(model: ir.Model, sizes: Sizes) -> Wiring:
    """Wire a graph, and take of the ways through its Reshapes those that leave something to be taken out."""
    choices: dict[ir.Node, int] = {}
    wiring = _wire(model.graph, sizes, choices)
    for _ in range(MOST_ROUNDS):
        stuck = [node for node, ways in wiring.ways.items() if _is_stuck(node, ways, wiring)]
        if not stuck:
            break
        choices |= {node: choices.get(node, 0) + 1 for node in stuck}
        wiring = _wire(model.graph, sizes, choices)
    return wiring


def _is_stuck(node: ir.Node, ways: list[np.ndarray], wiring: Wiring) -> bool:
    number = wiring.choices.get(node, 0)
    return number < len(ways) and not wiring.free(ways[number]).any()


def _wire(graph: ir.Graph, sizes: Sizes, choices: dict[ir.Node, int]) -> Wiring:
    wiring = Wiring(sizes, dict(choices))
    for node in graph:
        _wire_node(node, wiring)
    for value in graph.outputs:
        wiring.freeze(value, RESULT)
    for value in _captured(graph):
        wiring.freeze(value, CAPTURED)
    for node in graph:
        _freeze_counted(node, wiring)
    return wiring


def _wire_node(node: ir.Node, wiring: Wiring) -> None:
    rule = RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
    try:
        if rule is None:
            raise NotImplementedError
        rule(node, wiring)
    except (NotImplementedError, KeyError):
        # No rule for the operator, or none for this form of it, or a size that could not be measured.
        for value in node.inputs:
            wiring.freeze(value, UNKNOWN.format(qualified(node)))
        for output in node.outputs:
            size = wiring.size(output)
            if size is not None:
                wiring.axes[output] = [None] * len(size)


def _captured(graph: ir.Graph) -> Iterator[ir.Value]:
    """Values of the main graph that nodes of its subgraphs read."""
    for node in graph.all_nodes():
        if node.graph is not graph:
            yield from (value for value in node.inputs if value is not None and value.graph is graph)
    for inner in graph.subgraphs():
        yield from (value for value in inner.outputs if value.graph is graph)


def _freeze_counted(node: ir.Node, wiring: Wiring) -> None:
    """What reads the size of an axis may multiply it by other sizes, and give it to a Reshape, an Expand or a Resize.

    Whatever else is done with it, it must stay.
    """
    shaping = {"Reshape": 1, "Expand": 1, "Resize": 3}
    traced = is_operator(node, *TRACED) and (node.op_type != "Mul" or _multiplies_sizes(node, wiring))
    for position, value in enumerate(node.inputs):
        whole = value is not None and value.dtype in WHOLE
        if value is None or not (whole or is_operator(value.producer(), "Cast")):
            continue
        if not is_operator(value.producer(), *TRACED):
            # Its numbers are none that are known to be sizes, and an activation has as many as it has elements.
            continue
        if traced and not (node.op_type == "Reshape" and position == 1):
            continue
        if is_operator(node, *shaping) and shaping[node.op_type] == position:
            continue
        for element in wiring.dimensions.elements(value):
            for atoms in map(wiring.labelled, dimensions_in(element)):
                if atoms is not None:
                    wiring.atoms.freeze(atoms, COUNTED)


def _multiplies_sizes(node: ir.Node, wiring: Wiring) -> bool:
    """Whether all that it makes are products of sizes and whole numbers."""
    elements = wiring.dimensions.elements(node.outputs[0]) if node.outputs[0].dtype in WHOLE else []
    return bool(elements) and None not in elements
