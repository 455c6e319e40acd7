"""Reshape to a shape that is known but for one axis: the target becomes a constant.

Exporters compute such targets at run time from the shapes of other tensors, ten small nodes a Reshape.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import add_initializer, constant, integer, is_operator


def fix_reshape_targets(model: ir.Model) -> int:
    """Every Reshape of the main graph to axes of known size but for one, which follows from the others."""
    fixed = 0
    for node in list(model.graph):
        target = _target(node)
        if target is not None:
            node.replace_input_with(1, add_initializer(model.graph, f"{node.name}_target", target))
            fixed += 1
    return fixed


def _target(node: ir.Node) -> np.ndarray | None:
    """int64 `(rank,)`, -1 for the unknown axis; None where there is nothing to fix or too much is unknown."""
    if not is_operator(node, "Reshape") or constant(node.inputs[1]) is not None or integer(node, "allowzero", 0):
        return None
    shape = node.outputs[0].shape
    # What an exporter says of an output is what it was traced with, and need not hold for another batch.
    if shape is None or node.outputs[0].is_graph_output():
        return None
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return np.array(sizes, np.int64) if sizes.count(-1) <= 1 and 0 not in sizes else None
