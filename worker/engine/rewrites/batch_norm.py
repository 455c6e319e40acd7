"""BatchNormalization at inference is one factor and one offset a channel.

They go into the Conv, ConvTranspose or Gemm before it where that has no other reader, else into the Conv or Gemm
behind it where nothing is padded there, and become a Mul and an Add where neither can take them.
S. Ioffe, C. Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, section 3.1.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import (
    add_initializer,
    constant,
    free_name,
    integer,
    is_float32,
    is_operator,
    number,
    only_reader,
    rank,
    replace,
    text,
)

PARAMETERS = 4


@dataclass(frozen=True)
class Channels:
    """y = factor x + offset, both float32 `(C,)`."""

    factor: np.ndarray
    offset: np.ndarray


def fold_batch_norm(model: ir.Model) -> int:
    """Every BatchNormalization of the main graph that is one at inference."""
    folded = 0
    for node in list(model.graph):
        channels = _channels(node)
        if channels is None:
            continue
        if _into_producer(node, channels, model.graph) or _into_reader(node, channels, model.graph):
            folded += 1
        elif rank(node.inputs[0]) is not None:
            _as_arithmetic(node, channels, model.graph)
            folded += 1
    return folded


def _channels(node: ir.Node) -> Channels | None:
    if not is_operator(node, "BatchNormalization") or integer(node, "training_mode", 0):
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]) or not is_float32(node.inputs[0]):
        return None
    known = [constant(value) for value in node.inputs[1 : 1 + PARAMETERS]]
    if any(value is None for value in known):
        return None
    scale, bias, mean, variance = (np.asarray(value, np.float64) for value in known)
    factor = scale / np.sqrt(variance + number(node, "epsilon", 1e-5))
    return Channels(factor.astype(np.float32), (bias - mean * factor).astype(np.float32))


def _into_producer(node: ir.Node, channels: Channels, graph: ir.Graph) -> bool:
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    if source is None or producer is None or producer.graph is not graph or only_reader(source) is not node:
        return False
    axis = _output_axis(producer)
    weight = constant(producer.inputs[1]) if axis is not None else None
    bias = producer.inputs[2] if len(producer.inputs) > 2 else None
    offset = np.zeros(1, np.float32) if bias is None else constant(bias)
    if axis is None or weight is None or offset is None or weight.shape[axis] != len(channels.factor):
        return False
    if not _counts_channels(offset, len(channels.factor)):
        return False
    factor = channels.factor.reshape([-1 if position == axis else 1 for position in range(weight.ndim)])
    producer.replace_input_with(1, add_initializer(graph, f"{node.name}_weight", weight * factor))
    shifted = channels.offset + offset.reshape(-1) * channels.factor
    if len(producer.inputs) < 3:
        producer.resize_inputs(3)
    producer.replace_input_with(2, add_initializer(graph, f"{node.name}_bias", shifted.astype(np.float32)))
    _drop(graph, node, source)
    return True


def _counts_channels(bias: np.ndarray, channels: int) -> bool:
    """Whether a bias is one number a channel, or one for all: that of a Gemm may be a matrix."""
    return bias.size == 1 or bias.shape in ((channels,), (1, channels))


def _output_axis(producer: ir.Node) -> int | None:
    """Axis of the weight that counts what comes out; None where it cannot take a factor."""
    if is_operator(producer, "Conv"):
        return 0
    if is_operator(producer, "ConvTranspose") and integer(producer, "group", 1) == 1:
        return 1
    plain = number(producer, "alpha", 1.0) == number(producer, "beta", 1.0) == 1.0
    if is_operator(producer, "Gemm") and plain:
        return 0 if integer(producer, "transB", 0) else 1
    return None


def _into_reader(node: ir.Node, channels: Channels, graph: ir.Graph) -> bool:
    """Into a Conv or Gemm behind it. Padding puts zeros where the offset would be, so then only a factor goes in."""
    reader = only_reader(node.outputs[0])
    if reader is None or reader.graph is not graph or reader.inputs[0] is not node.outputs[0]:
        return False
    axis = _input_axis(reader)
    weight = constant(reader.inputs[1]) if axis is not None else None
    bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    offset = constant(bias)
    if axis is None or weight is None or (bias is not None and offset is None):
        return False
    if weight.shape[axis] != len(channels.factor) or (_pads(reader) and channels.offset.any()):
        return False
    factor = channels.factor.reshape([-1 if position == axis else 1 for position in range(weight.ndim)])
    shift = channels.offset.reshape(factor.shape)
    out = 1 if axis == 0 else 0
    if offset is not None and not _counts_channels(offset, weight.shape[out]):
        return False
    added = (weight.astype(np.float64) * shift).sum(axis=tuple(p for p in range(weight.ndim) if p != out))
    reader.replace_input_with(1, add_initializer(graph, f"{node.name}_weight", weight * factor))
    total = added if offset is None else added + offset.reshape(-1)
    if len(reader.inputs) < 3:
        reader.resize_inputs(3)
    reader.replace_input_with(2, add_initializer(graph, f"{node.name}_bias", total.astype(np.float32)))
    source = node.inputs[0]
    if source is not None:
        _drop(graph, node, source)
    return True


def _input_axis(reader: ir.Node) -> int | None:
    """Axis of the weight that counts what goes in; None where it cannot take a factor."""
    if is_operator(reader, "Conv") and integer(reader, "group", 1) == 1:
        return 1
    plain = number(reader, "alpha", 1.0) == number(reader, "beta", 1.0) == 1.0 and not integer(reader, "transA", 0)
    if is_operator(reader, "Gemm") and plain:
        return 1 if integer(reader, "transB", 0) else 0
    return None


def _pads(reader: ir.Node) -> bool:
    pads = reader.attributes.get("pads")
    return (pads is not None and any(pads.as_ints())) or text(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _as_arithmetic(node: ir.Node, channels: Channels, graph: ir.Graph) -> None:
    dimensions = rank(node.inputs[0]) or 0
    shape = [1, -1, *[1] * (dimensions - 2)] if dimensions > 1 else [-1]
    factor = add_initializer(graph, f"{node.name}_factor", channels.factor.reshape(shape))
    offset = add_initializer(graph, f"{node.name}_offset", channels.offset.reshape(shape))
    source, output = node.inputs[0], node.outputs[0]
    between = free_name(graph, f"{output.name}_scaled")
    scaled = ir.Value(name=between, type=output.type, shape=output.shape)
    shifted = ir.Value(name=f"{output.name}_shifted", type=output.type, shape=output.shape)
    made = [
        ir.node("Mul", [source, factor], outputs=[scaled], name=f"{node.name}_scale"),
        ir.node("Add", [scaled, offset], outputs=[shifted], name=f"{node.name}_shift"),
    ]
    replace(graph, node, made)


def _drop(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    """Take the node out; its readers, and the graph where it was an output, get `source` instead."""
    output = node.outputs[0]
    name, was_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        source.name = name
