"""Least squares behind the other factors: the last factor of each place, fitted to what the original computes there.

W' = Y U^T (U U^T + l I)^-1, U what the factor is fed in the factored model, Y what the original's node gives, less its
bias: what the factors before it changed is made up for as far as it can be. l pulls towards the factor as it was, the
more the fewer rows there are.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import scipy.linalg

from worker.engine.graph_file import read_graph
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.places import weight_of
from worker.engine.low_rank.plan import Plan
from worker.engine.low_rank.writing import factor_names
from worker.engine.model_file import ModelFile
from worker.engine.moments.moments import CrossMoments
from worker.engine.moments.products import Product, as_rows, from_rows
from worker.engine.moments.reading import ROWS_A_TERM, cross_moments
from worker.engine.nodes import constant, constant_tensor, number
from worker.engine.pass_contract import PassContext

PULL = 0.01


def refit_last(
    plan: Plan, factored: ModelFile, chosen: Mapping[str, Shape], context: PassContext, samples: int
) -> dict[str, np.ndarray]:
    """New last factors by node of the original, in the layout of the ones that they replace.

    Raises:
        ModelFails: a call fails.

    """
    nodes = {node.name: node for node in read_graph(factored).graph}
    pairs, places = [], {}
    for name, shape in chosen.items():
        node = nodes[factor_names(name, shape.form)[-1]]
        weight = constant(weight_of(node))
        if weight is not None and _bias(node) is not None:
            places[node.name or ""] = (name, weight)
            pairs.append((Product(node, weight.shape), node.outputs[0].name or ""))
    found = {}
    for product, moments in cross_moments(factored, pairs, plan.model, context, samples):
        name, weight = places[product.name]
        rows = _fitted(product, as_rows(weight, product.channel_axis), moments)
        array = from_rows(rows, weight.shape, product.channel_axis)
        found[name] = np.ascontiguousarray(array.astype(np.float32))
    return found


def _fitted(product: Product, rows: np.ndarray, moments: CrossMoments) -> np.ndarray:
    count = max(1, moments.inputs.count)
    if moments.inputs.products is None or not (moments.inputs.finite and np.isfinite(moments.cross).all()):
        return rows
    inner = moments.inputs.products.astype(np.float64) / count
    bias, scale = _bias(product.node), number(product.node, "alpha", 1.0)
    cross = moments.cross / count
    if bias is not None and bias.size:
        cross = cross - np.outer(bias, moments.inputs.mean[0])
    pull = PULL * float(np.mean(np.diag(inner))) * max(1.0, ROWS_A_TERM * product.terms / count)
    left = scale**2 * inner + np.eye(len(inner)) * (pull or 1.0)
    made: np.ndarray = scipy.linalg.solve(left, (scale * cross + (pull or 1.0) * rows).T, check_finite=False).T
    return made


def _bias(node: ir.Node) -> np.ndarray | None:
    """What the node adds, `(N,)` float64, empty where nothing; None where that is no constant row."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(0)
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    array = np.asarray(tensor.numpy(), np.float64) * number(node, "beta", 1.0)
    return array.reshape(-1) if array.size == max(array.shape, default=1) else None
