"""MatMul by a constant matrix and a constant Add behind it: one Gemm, whose int8 kernel adds the bias by itself.

Only for rank 2: a Gemm takes no more, and for higher ranks the runtime has fused kernels of its own.
"""

import onnx_ir as ir

from worker.engine.nodes import MATRIX_RANK, constant, is_float32, is_operator, only_reader, rank, replace


def fold_product_bias(model: ir.Model) -> int:
    """Every MatMul of the main graph whose one reader adds a constant row."""
    folded = 0
    for node in list(model.graph):
        add = only_reader(node.outputs[0]) if is_operator(node, "MatMul") else None
        if add is None or not is_operator(add, "Add") or add.graph is not model.graph:
            continue
        weight = constant(node.inputs[1])
        bias = next((value for value in add.inputs if value is not node.outputs[0]), None)
        offsets = constant(bias)
        if weight is None or weight.ndim != MATRIX_RANK or offsets is None or rank(node.inputs[0]) != MATRIX_RANK:
            continue
        if offsets.shape not in ((weight.shape[1],), (1, weight.shape[1])) or not is_float32(node.inputs[0]):
            continue
        output = ir.Value(name=f"{add.outputs[0].name}_gemm")
        replace(
            model.graph,
            add,
            [ir.node("Gemm", [node.inputs[0], node.inputs[1], bias], outputs=[output], name=node.name)],
        )
        model.graph.remove(node, safe=True)
        folded += 1
    return folded
