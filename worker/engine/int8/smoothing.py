"""SmoothQuant: outlier channels of an activation are divided down, and the weights behind it multiplied up.

    s_j = max|X_j|^a / max|W_j|^(1 - a)

G. Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models, ICML 2023,
arXiv:2211.10438, equation 4. The division goes into the LayerNormalization that makes the activation, so the float
model computes what it did before.
"""

import time
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.affine import signed, unsigned
from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.extent import Extent
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.units import Role, Unit, units_of
from worker.engine.model_file import ModelFile
from worker.engine.nodes import add_initializer, constant, is_operator
from worker.engine.pass_contract import PassContext

STRENGTHS = (0.5, 0.65, 0.8, 0.95)
ROWS = 512
# A gain below this in squared error is not worth changing two tensors for.
WORTHWHILE = 0.95
SMALLEST = 1e-5


@dataclass(frozen=True)
class Joint:
    """A LayerNormalization `(..., K)` whose every reader multiplies by a matrix of weights."""

    output: ir.Value
    norm: ir.Node
    readers: list[Unit]


def smooth(
    model: ModelFile, context: PassContext, samples: int, extent: Extent | None = None
) -> tuple[ModelFile, dict[str, float]]:
    """The smoothed model, and the strength chosen at each joint, by the name of the LayerNormalization.

    Of `samples` those are read that `extent` reaches: as if no more had been asked for.

    At each joint the strength is kept that has the least squared error of the quantized products on real rows; none
    where the model as it is does about as well.

    Raises:
        ModelFails: a call fails.

    """
    graph = read_graph(model)
    joints = joints_of(graph)
    if not joints:
        return model, {}
    rows = _rows(model, joints, context, samples, Extent() if extent is None else extent)
    chosen: dict[str, float] = {}
    for joint in joints:
        found = rows[joint.output.name or ""]
        strength, factors = _best(found, [_as_columns(unit) for unit in joint.readers])
        if strength is not None:
            _apply(graph.graph, joint, factors)
            chosen[joint.norm.name or ""] = strength
    return (save_graph(graph, context.scratch / "smoothed"), chosen) if chosen else (model, {})


def joints_of(model: ir.Model) -> list[Joint]:
    """In the order of the graph."""
    units = {unit.node: unit for unit in units_of(model) if unit.role is Role.WEIGHTED and unit.node.op_type != "Conv"}
    found = []
    for node in model.graph:
        if not is_operator(node, "LayerNormalization") or len(node.inputs) < 2 or node.outputs[0].is_graph_output():
            continue
        uses = node.outputs[0].uses()
        readers = [units[use.node] for use in uses if use.node in units and use.idx == 0]
        scale = constant(node.inputs[1])
        offset = node.inputs[2] if len(node.inputs) > 2 else None
        known = scale is not None and scale.ndim == 1 and (offset is None or constant(offset) is not None)
        if known and readers and len(readers) == len(uses):
            found.append(Joint(node.outputs[0], node, readers))
    return found


def smoothing_factors(largest_input: np.ndarray, largest_weight: np.ndarray, strength: float) -> np.ndarray:
    """S `(K,)` float32 from max|X_j| and max|W_j|; 1 where either is 0."""
    inputs, weights = np.maximum(largest_input, SMALLEST), np.maximum(largest_weight, SMALLEST)
    factors = inputs**strength / weights ** (1 - strength)
    silent = (largest_input <= 0) | (largest_weight <= 0)
    return np.where(silent, 1.0, np.maximum(factors, SMALLEST)).astype(np.float32)


def _best(rows: np.ndarray, weights: list[np.ndarray]) -> tuple[float | None, np.ndarray]:
    """A strength, and the factors; None and ones where none is worth while, or there is nothing to tell it by."""
    ones = np.ones(rows.shape[1], np.float32)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not rows.size or not all(np.isfinite(weight).all() for weight in weights):
        return None, ones
    best, factors = None, ones
    least = _error(rows, weights, ones) * WORTHWHILE
    largest_input = np.abs(rows).max(axis=0)
    largest_weight = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    for strength in STRENGTHS:
        tried = smoothing_factors(largest_input, largest_weight, strength)
        error = _error(rows, weights, tried)
        if error < least:
            best, factors, least = strength, tried, error
    return best, factors


def _error(rows: np.ndarray, weights: list[np.ndarray], factors: np.ndarray) -> float:
    """Sum over the readers of the share of noise in X W after both are quantized."""
    smoothed = rows / factors
    activation = unsigned(float(smoothed.min()), float(smoothed.max()))
    inputs = activation.dequantize(activation.quantize(smoothed))
    total = 0.0
    for weight in weights:
        scaled = weight * factors[:, None]
        affine = signed(np.abs(scaled).max(axis=0, keepdims=True))
        exact, rounded = rows @ weight, inputs @ affine.dequantize(affine.quantize(scaled))
        total += float(np.square(exact - rounded).sum() / max(float(np.square(exact).sum()), 1e-30))
    return total


def _rows(
    model: ModelFile, joints: list[Joint], context: PassContext, samples: int, extent: Extent
) -> dict[str, np.ndarray]:
    """Up to about ROWS rows `(n, K)` of the input of each joint's readers."""
    names = {joint.output.name or "": FLOAT for joint in joints}
    chosen = np.arange(min(samples, context.feeds.sample_count))
    generator = np.random.default_rng(context.seed)
    # Rows of each call in the order in which they are drawn: the more calls there are, the fewer are kept of each.
    drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    started, read, wanted = time.monotonic(), 0, ROWS
    for arrays in exposed_calls(model, names, context, chosen, "joints"):
        read = min(read + context.feeds.samples_per_call(1), len(chosen))
        fewer = -(-ROWS // read)
        for name, array in arrays.items():
            if fewer < wanted:
                drawn[name] = [(places[:fewer], rows[:fewer].copy()) for places, rows in drawn[name]]
            flat = array.reshape(-1, array.shape[-1])
            places = generator.permutation(len(flat))[:fewer]
            drawn[name].append((places, flat[places]))
        wanted = fewer
        if read < len(chosen) and extent.ends(read, time.monotonic() - started, context):
            break
    extent.samples = read
    return {name: np.concatenate([rows[np.argsort(places)] for places, rows in parts]) for name, parts in drawn.items()}


def _as_columns(unit: Unit) -> np.ndarray:
    """`(K, N)`."""
    return unit.weight_values.T if unit.channel_axis == 0 else unit.weight_values


def _apply(graph: ir.Graph, joint: Joint, factors: np.ndarray) -> None:
    for index, value in enumerate(joint.norm.inputs[1:], start=1):
        array = constant(value)
        if array is not None and value is not None:
            made = add_initializer(graph, f"{joint.norm.name}/smoothed_{index}", array / factors)
            joint.norm.replace_input_with(index, made)
    for unit in joint.readers:
        shape = (1, -1) if unit.channel_axis == 0 else (-1, 1)
        scaled = unit.weight_values * factors.reshape(shape)
        unit.node.replace_input_with(1, add_initializer(graph, f"{unit.name}/smoothed", scaled))
