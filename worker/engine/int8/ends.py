"""Where a network begins and ends: its first weights see raw inputs, its last ones make the answers.

Both lose most in few bits and are few: they stay in 8 bits wherever the others get fewer (S. Zhou et al., DoReFa-Net,
https://arxiv.org/abs/1606.06160, section 2.7; S. Esser et al., Learned Step Size Quantization,
https://arxiv.org/abs/1902.08153, section 3).

First is what no weight stands before, on any way from an input; last what no weight stands behind. One way without
weights is not enough: along the residual sums of a transformer that is fed vectors, every layer has one.
"""

import onnx_ir as ir

from worker.engine.graph import qualified
from worker.engine.nodes import sources_of
from worker.engine.trainable.weights import OPERANDS


def ends_of(graph: ir.Graph) -> set[str]:
    """Names of the first and of the last nodes with weights: of each input and each output, whatever order they have.

    Tables, filters, matrices of products and of recurrent cells are weights; biases, scales and shifts are none.
    """
    return {node.name or "" for node in _first_of(graph) | last_of(graph)}


def last_of(graph: ir.Graph) -> set[ir.Node]:
    """Nodes with weights behind which none stands on any way to an output."""
    before: set[ir.Value] = set()
    found = set()
    for node in reversed(list(graph)):
        weighted = _has_weights(node)
        leads = any(value in before for value in node.outputs)
        if weighted and not leads:
            found.add(node)
        if leads or weighted:
            before.update(value for value in node.inputs if value is not None)
    return found


def _first_of(graph: ir.Graph) -> set[ir.Node]:
    behind: set[ir.Value] = set()
    found = set()
    for node in graph:
        weighted = _has_weights(node)
        follows = any(value in behind for value in node.inputs)
        if weighted and not follows:
            found.add(node)
        if follows or weighted:
            behind.update(node.outputs)
    return found


def _has_weights(node: ir.Node) -> bool:
    places = OPERANDS.get(qualified(node), ())
    return any(sources_of(node.inputs[place]) for place in places if place < len(node.inputs))
