"""What int8 products would do on a processor without VNNI: which of them could saturate there, and by how much.

Such kernels add the products of two neighbouring terms, unsigned by signed 8 bits, in 16 bits (see
`worker.engine.int8.saturation`). Whether that overflows follows from the weights and from the largest code that an
activation takes: `code x |w_0 + w_1| > 2^15 - 1` for two weights of one sign. Read off the graph as ONNX Runtime makes
it, where constants are folded and Q/DQ are fused; codes are those seen on the samples given.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.graph import attribute_of, nodes_of
from worker.engine.int8.saturation import Pairs
from worker.engine.model_file import ModelFile, save_model
from worker.engine.optimized import write_optimized
from worker.engine.sessions import EXTENDED, NONE, Feed, open_session, run_session, session_options

LARGEST_CODE, LARGEST_INT16 = 255, 2**15 - 1
SIGN_OFFSET = 128
"""Kernels of signed activations flip the sign bit, which adds this."""


@dataclass(frozen=True)
class Operands:
    """Where an operator has them: the activation, None where it quantizes one itself, and the weight."""

    activation: int | None
    weight: int


OPERATORS = {
    "QLinearConv": Operands(0, 3),
    "ConvInteger": Operands(0, 1),
    "QLinearMatMul": Operands(0, 3),
    "MatMulInteger": Operands(0, 1),
    "MatMulIntegerToFloat": Operands(0, 1),
    "DynamicQuantizeMatMul": Operands(None, 1),
    "QGemm": Operands(0, 3),
    "QAttention": Operands(0, 1),
    "DynamicQuantizeLSTM": Operands(None, 1),
}
RECURRENT_WEIGHT = 2


@dataclass(frozen=True)
class NodeRisk:
    """One node. `excess` is its largest sum of two products over what 16 bits hold: above 1 it saturates."""

    name: str
    operator: str
    excess: float
    largest_excess: float
    """The same at the largest code that there is."""
    pair_share: float
    largest_code: int


@dataclass(frozen=True)
class Risk:
    """`node_count` products of 8-bit numbers, of which `at_risk` may saturate, the worst first.

    `beyond_seen` more would at the largest code, which the samples given did not reach.
    """

    node_count: int
    at_risk: list[NodeRisk]
    beyond_seen: int


def saturation_risk(model: ModelFile, feeds: list[Feed], threads: int, folder: Path) -> Risk:
    """`feeds` are calls of the model, inputs in its own dtypes. Writes into `folder`, which must be new.

    Raises:
        ModelFails: the runtime refuses the file, or a call fails.

    """
    optimized = write_optimized(model, folder / "optimized" / "model.onnx", threads, EXTENDED).load()
    constants = {tensor.name: tensor for tensor in optimized.graph.initializer}
    nodes = [node for node in nodes_of(optimized.graph) if node.op_type in OPERATORS]
    seen = _seen(optimized, nodes, constants, feeds, threads, folder) if nodes else {}
    risks = [_node_risk(node, constants, seen) for node in nodes]
    at_risk = sorted((risk for risk in risks if risk.excess > 1), key=lambda risk: -risk.excess)
    beyond = sum(risk.excess <= 1 < risk.largest_excess for risk in risks)
    return Risk(len(nodes), at_risk, beyond)


def _node_risk(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], seen: dict[str, np.ndarray]) -> NodeRisk:
    operands = OPERATORS[node.op_type]
    code = LARGEST_CODE
    if operands.activation is not None and node.input[operands.activation] in seen:
        code = int(seen[node.input[operands.activation]].max(initial=0))
    places = [operands.weight]
    places += [RECURRENT_WEIGHT] if node.op_type == "DynamicQuantizeLSTM" else []
    sums = np.zeros(0, np.int64)
    for place in places:
        name = node.input[place]
        weight = numpy_helper.to_array(constants[name]) if name in constants else seen.get(name)
        # Products of two unsigned numbers are summed in 32 bits.
        if weight is not None and weight.dtype == np.int8:
            sums = np.concatenate([sums, _pair_sums(node, weight.astype(np.int64))])
    products = code * sums
    excess, most = (float(factor * sums.max(initial=0) / LARGEST_INT16) for factor in (code, LARGEST_CODE))
    share = float((products > LARGEST_INT16).mean()) if products.size else 0.0
    return NodeRisk(node.name or node.output[0], node.op_type, excess, most, share, code)


def _pair_sums(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """`|w_0 + w_1|` of every two neighbours of one sign, 0 for others; flat."""
    if "Conv" in node.op_type:
        group = attribute_of(node, "group", 1)
        if group > 1 and weight.shape[:2] == (group, 1):
            return np.zeros(0, np.int64)  # depthwise: summed in 32 bits
        shape, rows = weight.shape, weight.reshape(len(weight), -1)
    elif node.op_type == "QGemm" and attribute_of(node, "transB", 0):
        shape, rows = weight.shape, weight
    else:
        # Matrices (..., K, N), stacked by all axes before the last two.
        rows = np.swapaxes(weight, -1, -2).reshape(-1, weight.shape[-2])
        shape = rows.shape
    return Pairs.of(shape, 0).sums(rows).reshape(-1)


def _seen(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    feeds: list[Feed],
    threads: int,
    folder: Path,
) -> dict[str, np.ndarray]:
    """Of every operand that is no constant and no part of a subgraph: an activation's largest codes, in 0 .. 255, one
    a call; a second operand as the last call had it.
    """
    top = {output for node in model.graph.node for output in node.output}
    top |= {value.name for value in model.graph.input}
    operands = [(node, OPERATORS[node.op_type]) for node in nodes]
    activations = {node.input[one.activation] for node, one in operands if one.activation is not None}
    weights = {node.input[one.weight] for node, one in operands}
    wanted = sorted(((activations | weights) & top) - constants.keys())
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted if name not in outputs)
    exposed = save_model(model, folder / "exposed")
    session = open_session(exposed.path, threads, session_options(threads, NONE))
    codes: dict[str, list[int]] = {name: [] for name in wanted}
    seen: dict[str, np.ndarray] = {}
    for feed in feeds:
        for name, value in zip(wanted, run_session(session, feed, wanted), strict=True):
            offset = SIGN_OFFSET if value.dtype == np.int8 else 0
            codes[name].append(int(value.max(initial=0)) + offset)
            seen[name] = value
    return seen | {name: np.array(codes[name]) for name in wanted if name in activations}
