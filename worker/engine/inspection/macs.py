"""Multiply-accumulates of one call, by the shapes of the operators that multiply matrices.

Everything else (element-wise operators, pooling, normalization) is not counted, as is the custom.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from worker.engine.inspection import walk
from worker.engine.inspection.reading import DEFAULT_DOMAINS
from worker.engine.inspection.shapes import Shapes

KNOWN_DOMAINS = (*DEFAULT_DOMAINS, "com.microsoft")
# Operators of these families that the table below lacks multiply matrices too, as do those of other domains, such as a
# Conv that the runtime wrote in a layout of its own, padded to blocks: their count is unknown, not zero.
MULTIPLYING = re.compile("Attention|Conv|DeltaNet|GRU|Gemm|LSTM|Mamba|MatMul|MoE|RNN|Sampling|Search")


class UnknownShape(Exception):
    """A dimension that the count needs is not known."""


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of nodes, but for those that are `uncounted`: what those multiply cannot be known."""

    macs: int
    uncounted: list[NodeProto]


def count_nodes(nodes: Iterable[NodeProto], shapes: Shapes) -> Count:
    """Of these nodes, as far as it can be known: how often a loop runs and which branch is taken cannot."""
    total, uncounted = 0, list[NodeProto]()
    for node in nodes:
        inner = [node for graph in walk.subgraphs(node) for node in walk.nodes_within(graph.node)]
        counter = _uncounted if any(_counter(node) for node in inner) else _counter(node)
        try:
            total += 0 if counter is None else counter(node, shapes)
        except UnknownShape:
            uncounted.append(node)
    return Count(total, uncounted)


def count_macs(model: ModelProto, shapes: Shapes) -> int | None:
    """Multiply-accumulates of the graph; None where those of a node cannot be known."""
    count = count_nodes(model.graph.node, shapes)
    return None if count.uncounted else count.macs


def multiplies(node: NodeProto) -> bool:
    """Whether it is of an operator that multiplies matrices, countable or not."""
    return _counter(node) is not None


def _counter(node: NodeProto) -> Callable[[NodeProto, Shapes], int] | None:
    known = COUNTERS.get(node.op_type) if node.domain in KNOWN_DOMAINS else None
    return known or (_uncounted if MULTIPLYING.search(node.op_type) else None)


def _uncounted(node: NodeProto, _: Shapes) -> int:
    raise UnknownShape(node.op_type)


def _shape(name: str, shapes: Shapes, rank: int | None = None) -> list[int]:
    """The shape of a value. Raises UnknownShape unless every axis is a number (and there are `rank` of them)."""
    known = [size for size in shapes.get(name, [None]) if isinstance(size, int)]
    if name not in shapes or len(known) != len(shapes[name]) or (rank is not None and len(known) != rank):
        raise UnknownShape(name)
    return known


def _input(node: NodeProto, index: int) -> str:
    if index >= len(node.input) or not node.input[index]:
        raise UnknownShape(f"input {index} of {node.name!r}")
    return str(node.input[index])


def _flag(node: NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _convolution(weight: int) -> Callable[[NodeProto, Shapes], int]:
    """Y (N, M, ...) from W (M, C / group, k, ...): every output element takes one product per element of its filter."""

    def count(node: NodeProto, shapes: Shapes) -> int:
        kernel = _shape(_input(node, weight), shapes)
        return math.prod(_shape(node.output[0], shapes)) * math.prod(kernel[1:])

    return count


def _transposed_convolution(node: NodeProto, shapes: Shapes) -> int:
    """X (N, C, ...) with W (C, M / group, k, ...): every input element is spread over its filter."""
    kernel = _shape(_input(node, 1), shapes)
    return math.prod(_shape(_input(node, 0), shapes)) * math.prod(kernel[1:])


def _product(right: int) -> Callable[[NodeProto, Shapes], int]:
    """numpy.matmul of A (..., M, K) and B (..., K, N), either transposed where the node says so: M K N a product."""

    def count(node: NodeProto, shapes: Shapes) -> int:
        rows = _shape(_input(node, 0), shapes)
        columns = _shape(_input(node, right), shapes)
        if not rows or not columns or _flag(node, "transBatchA") or _flag(node, "transBatchB"):
            raise UnknownShape(node.name)
        rows = [1, *rows] if len(rows) == 1 else rows
        columns = [*columns, 1] if len(columns) == 1 else columns
        try:
            batch = np.broadcast_shapes(tuple(rows[:-2]), tuple(columns[:-2]))
        except ValueError as error:
            raise UnknownShape(node.name) from error
        width = columns[-2] if _flag(node, "transB") else columns[-1]
        return math.prod(batch) * rows[-2] * rows[-1] * width

    return count


def _recurrent(node: NodeProto, shapes: Shapes) -> int:
    """X (T, N, I) or (N, T, I), W (D, gates x H, I), R (D, gates x H, H): both products at every step of every row."""
    steps = math.prod(_shape(_input(node, 0), shapes, rank=3)[:2])
    return steps * (math.prod(_shape(_input(node, 1), shapes)) + math.prod(_shape(_input(node, 2), shapes)))


def _attention(node: NodeProto, shapes: Shapes) -> int:
    """ONNX Attention (opset 23): Q (N, heads, L, E), K (N, kv heads, S, E), V (N, kv heads, S, F): QK^T and its V.

    With three axes the heads lie in the last, (N, L, heads x E). `past_key` lengthens S by its own.
    """
    query, key, value = (_shape(_input(node, index), shapes) for index in range(3))
    if len(query) == 3:
        heads, kv_heads = _flag(node, "q_num_heads"), _flag(node, "kv_num_heads")
        if not heads or not kv_heads:
            raise UnknownShape(node.name)
        width, value_width = query[2], value[2] * heads // kv_heads
        length, source = query[1], key[1]
    else:
        width, value_width = query[1] * query[3], query[1] * value[3]
        length, source = query[2], key[2]
    if len(node.input) > 4 and node.input[4]:
        source += _shape(node.input[4], shapes, rank=4)[2]
    return query[0] * length * source * (width + value_width)


def _packed_attention(node: NodeProto, shapes: Shapes) -> int:
    """com.microsoft Attention: X (N, L, H) with W (H, 3 H) packed, then QK^T and its V over all heads."""
    if len(node.input) > 4 and node.input[4]:
        raise UnknownShape(node.name)  # a past that lengthens the keys
    batch, length, _ = _shape(_input(node, 0), shapes, rank=3)
    weight = _shape(_input(node, 1), shapes, rank=2)
    return batch * length * math.prod(weight) + 2 * batch * length * length * (weight[1] // 3)


def _either_attention(node: NodeProto, shapes: Shapes) -> int:
    return _packed_attention(node, shapes) if node.domain == "com.microsoft" else _attention(node, shapes)


def _multi_head_attention(node: NodeProto, shapes: Shapes) -> int:
    """com.microsoft MultiHeadAttention: query (N, L, H), key (N, S, H), value (N, S, F)."""
    if any(node.input[6:8]):
        raise UnknownShape(node.name)  # a past that lengthens the keys
    query, key, value = (_shape(_input(node, index), shapes, rank=3) for index in range(3))
    return query[0] * query[1] * key[1] * (query[2] + value[2])


def _packed_weights(node: NodeProto, shapes: Shapes) -> int:
    """com.microsoft MatMulNBits: A (..., K) with K x N weights packed in blocks, sizes as attributes."""
    return math.prod(_shape(_input(node, 0), shapes)) * _flag(node, "N")


def _einsum(node: NodeProto, shapes: Shapes) -> int:
    """Every combination of indices is one product; with one operand nothing is multiplied."""
    equation = next((attribute.s.decode() for attribute in node.attribute if attribute.name == "equation"), "")
    terms = re.sub(r"\s", "", equation).split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) != 2 or "..." in equation:
        raise UnknownShape(node.name)
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        for label, size in zip(term, _shape(name, shapes, rank=len(term)), strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


COUNTERS: dict[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _convolution(1),
    "DeformConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "FusedConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product(1),
    "MatMul": _product(1),
    "MatMulInteger": _product(1),
    "QLinearMatMul": _product(3),
    "FusedGemm": _product(1),
    "FusedMatMul": _product(1),
    "MatMulIntegerToFloat": _product(1),
    "DynamicQuantizeMatMul": _product(1),
    "QGemm": _product(3),
    "MatMulNBits": _packed_weights,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
    "Attention": _either_attention,
    "MultiHeadAttention": _multi_head_attention,
    "Einsum": _einsum,
}
