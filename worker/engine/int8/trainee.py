"""The float model that training goes on from: weights that round to the codes of its int8 form, and its biases."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.grids import GriddedWeight
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition, bias_of
from worker.engine.int8.units import Unit, units_of
from worker.engine.model_file import ModelFile
from worker.engine.nodes import add_initializer, constant

BIAS = 2


def trainee(
    prepared: ModelFile,
    placement: Placement,
    biases: Mapping[str, np.ndarray],
    weights: Mapping[str, GriddedWeight],
    folder: Path,
) -> ModelFile:
    """`biases` `(C,)` and `weights` by unit; a convolution and a Gemm without a bias get one, to be learned. For
    weights that are one and the same there is one constant.

    Names stay, but for those of constants that other nodes read as well.
    """
    model = read_graph(prepared)
    sharing: dict[int, list[Unit]] = {}
    for unit in Placement.of(units_of(model), placement.quantized).in_int8:
        if unit.name in weights:
            sharing.setdefault(id(weights[unit.name]), []).append(unit)
    for units in sharing.values():
        _set_weight(model.graph, units, weights[units[0].name])
        for unit in units:
            _set_bias(model.graph, unit, biases.get(unit.name))
    return save_graph(model, folder)


def _set_weight(graph: ir.Graph, units: list[Unit], weight: GriddedWeight) -> None:
    """One constant for all of these units: the one that they read, where nobody else does."""
    first, value = units[0], units[0].weight
    latent = weight.latent(first.weight_values)
    if len(value.uses()) != len(units) or value.is_graph_output():
        value = add_initializer(graph, f"{first.name}/weight", latent.astype(np.float32))
        for unit in units:
            unit.node.replace_input_with(1, value)
    else:
        _fill(value, latent)


def _set_bias(graph: ir.Graph, unit: Unit, bias: np.ndarray | None) -> None:
    if unit.node.op_type != "MatMul":
        _set(graph, unit.node, BIAS, bias_of(unit) if bias is None else bias, f"{unit.name}/bias")
        return
    add = bias_addition(unit)
    if add is not None and bias is not None:
        index = next(index for index, value in enumerate(add.inputs) if constant(value) is not None)
        _set(graph, add, index, bias, f"{unit.name}/bias")


def _set(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray | None, name: str) -> None:
    """Let `node` read this constant: under the name that it has, where nobody else reads it."""
    if array is None:
        return
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    value = node.inputs[index]
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        node.replace_input_with(index, add_initializer(graph, name, array.astype(np.float32)))
        return
    _fill(value, array)


def _fill(value: ir.Value, array: np.ndarray) -> None:
    shape = constant(value)
    values = array.astype(np.float32).reshape(array.shape if shape is None else shape.shape)
    value.const_value = ir.tensor(np.ascontiguousarray(values), name=value.name)
