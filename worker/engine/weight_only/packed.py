"""MatMulNBits: a kernel that multiplies by weights in 4 or 8 bits as they lie, without unpacking them first.

It reads less memory than a float kernel, which is what a product of one row or a few waits for, and computes more: what
is faster depends on the rows, the processor and the bits.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import RUNTIME_DOMAIN
from worker.engine.nodes import MATRIX_RANK, add_initializer, constant, replace
from worker.engine.weight_only.blocks import Blocks
from worker.engine.weight_only.places import Place

# Activations in 8 bits, by block; without it the kernel for 8-bit weights is a hundred times slower.
ACCURACY_LEVEL = 4


def write_packed(graph: ir.Graph, place: Place, blocks: Blocks) -> None:
    """The one MatMul or Gemm that reads the matrix becomes a MatMulNBits."""
    (use,) = graph.initializers[place.name].uses()
    node, (depth, width) = use.node, blocks.shape

    def fixed(role: str, array: np.ndarray | None) -> ir.Value | None:
        return None if array is None else add_initializer(graph, f"{place.name}/{role}", array)

    offsets = constant(node.inputs[2]) if len(node.inputs) > MATRIX_RANK else None
    inputs = [
        node.inputs[0],
        fixed("packed", blocks.packed),
        fixed("scale", blocks.scales),
        fixed("zero_points", blocks.zero_points),
        None,
        fixed("bias", None if offsets is None else offsets.reshape(-1)),
    ]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {"K": depth, "N": width, "bits": blocks.bits, "block_size": blocks.block_size}
    made = ir.node(
        "MatMulNBits",
        inputs,
        attributes | {"accuracy_level": ACCURACY_LEVEL},
        domain=RUNTIME_DOMAIN,
        outputs=[ir.Value(name=f"{node.name}/MatMulNBits")],
        name=node.name,
    )
    replace(graph, node, [made])
    graph.opset_imports.setdefault(RUNTIME_DOMAIN, 1)
