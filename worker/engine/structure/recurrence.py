"""How recurrent layers wire their operands.

A hidden unit has a row and a bias in every gate, a column that feeds it back, a state to begin with, and its place in
what the layer makes.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.moments.products import RecurrentProduct
from worker.engine.nodes import constant_tensor, integer, is_operator, operand
from worker.engine.structure.wiring import FIXED, Slot, Wiring

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
LENGTHS, STATES = 4, (5, 6)
# What shapes of a state are made by.
SHAPING = ("Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")


def recurrent(node: ir.Node, wiring: Wiring) -> None:
    """X (T, N, I), W (D, gates x H, I), R (D, gates x H, H), B (D, 2 x gates x H), states (D, N, H), P (D, 3 x H).

    I in, H out; of several directions D each keeps the same.
    """
    gates = GATES[node.op_type]
    source, kernel, feedback = (operand(node, index) for index in range(3))
    if source is None or kernel is None or feedback is None or integer(node, "layout", 0):
        raise NotImplementedError
    read, fed_back = wiring.weight(kernel), wiring.weight(feedback)
    units = wiring.of(feedback)[2]
    if read is None or fed_back is None or units is None:
        raise NotImplementedError
    wiring.freeze(source, FIXED, [0, 1])
    rows = [(kernel, gates), (feedback, gates), (operand(node, 3), 2 * gates), (operand(node, 7), PEEPHOLES)]
    for value, copies in rows:
        if value is not None:
            wiring.freeze(value, FIXED, [0])
            _tie(wiring, np.tile(units, copies), wiring.of(value)[1])
    for state in (operand(node, index) for index in STATES):
        if state is not None and not is_zero(state):
            _tie(wiring, units, wiring.of(state)[2])
    entering, summed = wiring.of(source)[2], wiring.of(kernel)[2]
    if entering is not None and summed is not None:
        wiring.atoms.unite(entering, summed)
        wiring.consumers.append(Slot(node, read, 2, summed))
    for atoms in (entering, summed):
        if atoms is not None and (entering is None or summed is None):
            wiring.atoms.freeze(atoms, FIXED)
    made = np.tile(units, gates)
    wiring.producers += [Slot(node, weight, 1, made) for weight in (read, fed_back)]
    wiring.consumers.append(Slot(node, fed_back, 2, units))
    for output, rank in zip(node.outputs, (4, 3, 3), strict=False):
        wiring.axes[output] = [*[None] * (rank - 1), units]


def product_of(slot: Slot, shape: tuple[int, ...], direction: int | None = None) -> RecurrentProduct | None:
    """What a slot of a recurrent layer reads, as rows.

    None where that is no tensor of the graph, where the weight is not its operand as it stands, and where sequences
    are filled up to one length: what they are filled with counts for nothing.
    """
    kernel, feedback = (operand(slot.node, index) for index in (1, 2))
    if kernel is None or feedback is None or kernel is feedback or operand(slot.node, LENGTHS) is not None:
        return None
    if slot.weight.name not in (kernel.name, feedback.name):
        return None
    fed_back = slot.weight.name == feedback.name
    product = RecurrentProduct(slot.node, shape, fed_back, direction if fed_back else None)
    return product if product.source else None


def is_zero(value: ir.Value) -> bool:
    """Whether a state is nothing but zeros, as exporters write them: what a layer begins with that is given none."""
    source: ir.Value | None = value
    while source is not None and (source.is_graph_input() or constant_tensor(source) is None):
        node = source.producer()
        if node is not None and is_operator(node, "ConstantOfShape"):
            filling = node.attributes.get("value")
            return filling is None or not filling.as_tensor().numpy().any()
        source = node.inputs[0] if node is not None and is_operator(node, *SHAPING) else None
    tensor = None if source is None else constant_tensor(source)
    return tensor is not None and not tensor.numpy().any()


def _tie(wiring: Wiring, units: np.ndarray, own: np.ndarray | None) -> None:
    if own is None:
        wiring.atoms.freeze(units, FIXED)
    else:
        wiring.atoms.unite(units, own)
