"""The sum before a LayerNormalization as Sum, which the runtime leaves alone, instead of Add, which it fuses.

On CPUs the fused kernel, SkipLayerNormalization, takes three times as long as Add and LayerNormalization one after
the other: 0.64 ms instead of 0.20 for 128 x 768 on one thread of a Zen 3, by onnxruntime 1.32.0.
"""

import onnx_ir as ir

from worker.engine.nodes import is_operator


def keep_sums_apart(model: ir.Model) -> int:
    """Every Add of two computed tensors that a LayerNormalization of the main graph reads."""
    kept = 0
    for node in list(model.graph):
        source = node.inputs[0] if is_operator(node, "LayerNormalization") else None
        add = source.producer() if source is not None else None
        if add is None or not is_operator(add, "Add") or add.graph is not model.graph:
            continue
        if any(value is None or value.const_value is not None for value in add.inputs):
            continue
        add.op_type = "Sum"
        kept += 1
    return kept
