"""Shapes of every value of a graph, for one call at batch 1, as far as they can be known."""

import math

from onnx import ModelProto, TensorProto, helper, inliner, shape_inference

from worker.engine.graph import Dimension, dimension_of, shape_of, values_to_feed
from worker.engine.inspection import session

# Shape inference reads the values of small integer tensors (a Reshape's target) and of no larger ones.
MAX_KEPT_ELEMENTS = 1024
BATCH_SYMBOLS = frozenset({"N", "batch", "batch_size", "Batch", "BATCH"})
Shapes = dict[str, list[Dimension]]


def strip_weights(model: ModelProto) -> None:
    """Turn large initializers into inputs of the same type and shape, in place: all shapes stay what they were."""
    listed = {value.name for value in model.graph.input}
    kept = []
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MAX_KEPT_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in listed:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def inline_functions(model: ModelProto) -> ModelProto | None:
    """The model with every call of a local function replaced by its body; None where the inliner fails."""
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError):
        return None


def bind_batch(model: ModelProto) -> None:
    """Set the batch axis to 1, in place.

    The batch axis of an input is the one that is named like it, else the first unless that is a number. Every axis of
    an input, output or annotated value that bears the same symbol goes with it.
    """
    inputs = values_to_feed(model.graph)
    symbols = set(BATCH_SYMBOLS)
    for value in inputs:
        axes = value.type.tensor_type.shape.dim
        if not axes or any(axis.dim_param in BATCH_SYMBOLS for axis in axes) or isinstance(dimension_of(axes[0]), int):
            continue
        if axes[0].dim_param:
            symbols.add(axes[0].dim_param)
        axes[0].dim_value = 1
    for value in [*inputs, *model.graph.output, *model.graph.value_info]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in symbols:
                axis.dim_value = 1


def infer(model: ModelProto) -> Shapes | None:
    """Shape by value name, inputs and weights included; None where inference fails as a whole.

    The model is one that `bind_batch`, `strip_weights` and `inline_functions` went over.
    """
    try:
        graph = shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        # Too large to be serialized, or attributes that inference does not know what to make of.
        return None
    shapes: Shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes |= {sparse.values.name: list(sparse.dims) for sparse in graph.sparse_initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        known = shape_of(value.type)
        if known is not None:
            shapes.setdefault(value.name, list(known))
    return shapes


def infer_fused(model: ModelProto, shapes: Shapes) -> None:
    """Fill in what only ONNX Runtime knows, shapes behind its own operators, by asking for every value as an output."""
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for node in model.graph.node:
        for name in node.output:
            if name and any(not isinstance(size, int) for size in shapes.get(name, [None])):
                probe.graph.output.add(name=name)
    for name, shape in session.output_shapes(probe.SerializeToString()).items():
        shapes[name] = shape
