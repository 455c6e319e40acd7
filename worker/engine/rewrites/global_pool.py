"""A mean over all of space is a GlobalAveragePool, which has an int8 kernel; ReduceMean has none.

Exact but where there is no space: of an axis of size 0 the mean is NaN, and ONNX Runtime's pool refuses the call.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import (
    CONV_RANK,
    add_initializer,
    constant,
    free_name,
    integer,
    is_float32,
    is_operator,
    rank,
    replace,
    text,
)

SPACE = (2, 3)


def pool_globally(model: ir.Model) -> int:
    """ReduceMean over the last two axes of a rank-4 tensor, and AveragePool whose window is all of its input."""
    applied = 0
    for node in list(model.graph):
        if _is_spatial_mean(node) or _is_whole_window(node):
            _pool(node, model)
            applied += 1
    return applied


def _pool(node: ir.Node, model: ir.Model) -> None:
    source = node.inputs[0]
    keeps = not is_operator(node, "ReduceMean") or bool(integer(node, "keepdims", 1))
    shape = None if source is None or source.shape is None else ir.Shape([*source.shape[:2], 1, 1])
    pooled = free_name(model.graph, f"{node.outputs[0].name}_pooled")
    output = ir.Value(name=pooled, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    made = [ir.node("GlobalAveragePool", [source], outputs=[output], name=f"{node.name}_pool")]
    if not keeps:
        axes = add_initializer(model.graph, f"{node.name}_axes", _int64(SPACE))
        flat = ir.Value(name=f"{node.outputs[0].name}_squeezed", type=ir.TensorType(ir.DataType.FLOAT))
        made.append(ir.node("Squeeze", [output, axes], outputs=[flat], name=f"{node.name}_squeeze"))
    replace(model.graph, node, made)


def _is_spatial_mean(node: ir.Node) -> bool:
    if not is_operator(node, "ReduceMean") or rank(node.inputs[0]) != CONV_RANK or not is_float32(node.inputs[0]):
        return False
    attribute = node.attributes.get("axes")
    axes = list(attribute.as_ints()) if attribute is not None else None
    if axes is None and len(node.inputs) > 1:
        given = constant(node.inputs[1])
        axes = None if given is None else given.tolist()
    return axes is not None and sorted(axis % CONV_RANK for axis in axes) == list(SPACE)


def _is_whole_window(node: ir.Node) -> bool:
    """A window that holds all of its input, or, cut off where the input ends, reaches beyond it."""
    source = node.inputs[0] if node.inputs else None
    if not is_operator(node, "AveragePool") or source is None or source.shape is None or not is_float32(source):
        return False
    kernel, pads = node.attributes.get("kernel_shape"), node.attributes.get("pads")
    padded = (pads is not None and any(pads.as_ints())) or text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if kernel is None or padded or len(source.shape) != CONV_RANK:
        return False
    window, space = list(kernel.as_ints()), list(source.shape[2:])
    cut_off = integer(node, "ceil_mode", 0)
    beyond = all(isinstance(size, int) and reach >= size for size, reach in zip(space, window, strict=True))
    output = node.outputs[0].shape
    one = output is not None and list(output[2:]) == [1, 1]
    return window == space or bool(cut_off and beyond and one)


def _int64(values: tuple[int, ...]) -> np.ndarray:
    return np.array(values, np.int64)
