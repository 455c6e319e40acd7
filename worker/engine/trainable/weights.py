"""Which constants of a graph are trained: those that an operator reads as weights, not those that happen to be floats.

A weight may reach its reader through operators that move or repeat elements without computing. No torch here.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.graph import qualified
from worker.engine.nodes import TRAINED_TYPES, constant_names, constant_tensor, sources_of

FLOATS = (*TRAINED_TYPES, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# What they make of an activation depends on its shape alone.
COUNTING = frozenset({"Shape", "Size"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
# By operator the inputs that are weights wherever a constant stands there.
WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Einsum": (0, 1, 2, 3),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
    "SimplifiedLayerNormalization": (1,),
    "com.microsoft.Attention": (1, 2),
    "com.microsoft.BiasGelu": (1,),
    "com.microsoft.EmbedLayerNormalization": (2, 3, 4, 5, 6),
    "com.microsoft.FastGelu": (1,),
    "com.microsoft.FusedConv": (1, 2),
    "com.microsoft.FusedGemm": (0, 1, 2),
    "com.microsoft.FusedMatMul": (0, 1),
    "com.microsoft.MultiHeadAttention": (3,),
    "com.microsoft.SkipLayerNormalization": (2, 3, 4),
    "com.microsoft.SkipSimplifiedLayerNormalization": (2, 3),
    "com.microsoft.TransposeMatMul": (0, 1),
}
# Inputs that are weights where a tensor stands there; a single number is a factor that somebody chose.
TENSORS: dict[str, tuple[int, ...]] = {"Add": (0, 1), "Concat": tuple(range(16)), "Where": (1, 2)}
# Inputs that are weights where a vector stands there: tables of cosines are factors as well.
VECTORS: dict[str, tuple[int, ...]] = {"Mul": (0, 1)}
# By operator the inputs where a constant is what is multiplied or looked up in, whatever its shape.
OPERANDS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "Einsum": (0, 1, 2, 3),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
    "com.microsoft.Attention": (1,),
    "com.microsoft.EmbedLayerNormalization": (2, 3, 4),
    "com.microsoft.FusedConv": (1,),
    "com.microsoft.FusedGemm": (0, 1),
    "com.microsoft.FusedMatMul": (0, 1),
    "com.microsoft.TransposeMatMul": (0, 1),
}
STATISTICS = {"BatchNormalization": (3, 4)}
# A mask that is added has zeros and something near minus infinity.
LARGEST_WEIGHT = 1e4


@dataclass
class Weights:
    """Names of constants, in the order of the graph."""

    parameters: list[str] = field(default_factory=list)
    statistics: list[str] = field(default_factory=list)
    """Running means and variances of BatchNormalization: no gradient, but training moves them."""


def find_weights(graph: ir.Graph) -> Weights:
    """The weights among the initializers and `Constant` nodes of a graph without functions.

    What only meets numbers counted from shapes and positions is part of a formula and no weight.
    """
    found: dict[str, str] = {}
    active = activations(graph)
    for node in graph:
        if not any(value in active for value in node.outputs):
            continue
        for position, value in enumerate(node.inputs):
            for source in sources_of(value):
                kind = kind_of(qualified(node), position, source)
                if kind is not None:
                    # What is a running statistic anywhere gets no gradient anywhere.
                    held = found.get(source.name or "", kind)
                    found[source.name or ""] = "statistics" if "statistics" in (kind, held) else kind
    ordered = [name for name in constant_names(graph) if name in found]
    return Weights(
        [name for name in ordered if found[name] == "parameters"],
        [name for name in ordered if found[name] == "statistics"],
    )


def biases_and_norms(graph: ir.Graph) -> frozenset[str]:
    """Names of the constants that are biases, peepholes, slopes of PRelu, or scales and shifts of norms to all who read
    them as weights, whatever their shape: those of a recurrent node in both directions have two axes.
    """
    found: set[str] = set()
    operands: set[str] = set()
    for node in graph:
        name = qualified(node)
        for position in WEIGHTS.get(name, ()):
            sources = sources_of(node.inputs[position]) if position < len(node.inputs) else []
            (operands if position in OPERANDS.get(name, ()) else found).update(one.name or "" for one in sources)
    return frozenset(found - operands)


def activations(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on float inputs, on embeddings, or on a product of weights, which exporters leave unfolded."""
    found = {value for value in graph.inputs if value.const_value is None and value.dtype in FLOATS}
    for node in graph:
        if _starts_from_weights(node) or (node.op_type not in COUNTING and any(one in found for one in node.inputs)):
            found.update(node.outputs)
    return found


def _starts_from_weights(node: ir.Node) -> bool:
    if qualified(node) == "com.microsoft.EmbedLayerNormalization":
        return True
    if qualified(node) == "Gather":
        return bool(sources_of(node.inputs[0]))
    return qualified(node) in PRODUCTS and all(sources_of(value) for value in node.inputs[:2])


def kind_of(name: str, position: int, source: ir.Value) -> str | None:
    """What a constant is to the operator that reads it at this position."""
    if position in STATISTICS.get(name, ()):
        return "statistics"
    if position in WEIGHTS.get(name, ()):
        return "parameters"
    if position in TENSORS.get(name, ()) and _is_tensor(source):
        return "parameters"
    if position in VECTORS.get(name, ()) and _is_tensor(source) and wide_axes(source) == 1:
        return "parameters"
    return None


def wide_axes(source: ir.Value) -> int:
    tensor = constant_tensor(source)
    return 0 if tensor is None else sum(size != 1 for size in tensor.shape.numpy())


def _is_tensor(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or tensor.size <= 1:
        return False
    array = tensor.numpy()
    return bool(np.isfinite(array).all() and np.abs(array).max() < LARGEST_WEIGHT)
