"""Which tensor says what an output means: the scores behind a Softmax, not the probabilities that it makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from app.recipes.training import TrainingOptions
from worker.engine.evaluation.metrics import scores_axis
from worker.engine.nodes import integer, is_operator
from worker.engine.training.targets import SIGMOIDS, Target

LAST_AXIS_BY_DEFAULT = 13  # the opset from which Softmax takes the last axis
MATRIX_RANK = 2
RENAMING = ("Cast", "Identity")
RESHAPING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Reading:
    """`value` is a tensor of scores of classes along `axis` of its rows (n, ...), or of numbers where that is None."""

    output: str
    value: str
    axis: int | None
    certain: bool = True
    """Whether it is known to score classes; where it only looks as if, its values count as well as their order."""
    probabilities: bool = False
    """Whether it holds probabilities of classes in place of scores."""


@dataclass(frozen=True)
class Softmax:
    """What makes an output: the scores that go in, and the axis of the output that it sums to 1."""

    scores: str
    axis: int


def softmax_behind(graph: ir.Model, output: str) -> Softmax | None:
    """The Softmax or LogSoftmax that an output of the graph comes from, at once or by another name or type."""
    value = next((one for one in graph.graph.outputs if one.name == output), None)
    shape, node = (None, None) if value is None else (value.shape, _maker(value, RENAMING))
    if shape is None or node is None or not is_operator(node, "Softmax", "LogSoftmax"):
        return None
    rank, opset = len(shape), graph.opset_imports.get("", 1)
    axis = integer(node, "axis", -1 if opset >= LAST_AXIS_BY_DEFAULT else 1) % max(1, rank)
    if opset < LAST_AXIS_BY_DEFAULT and axis != rank - 1:
        return None  # all axes from there on are one then
    scores = node.inputs[0]
    return Softmax("" if scores is None else scores.name or "", axis)


def squashed_by(graph: ir.Model, output: str) -> str | None:
    """The operator that makes an output of the graph probabilities, with at most a change of shape behind it."""
    value = next((one for one in graph.graph.outputs if one.name == output), None)
    node = None if value is None else _maker(value, RESHAPING)
    return node.op_type if node is not None and is_operator(node, "Softmax", *SIGMOIDS) else None


def _maker(value: ir.Value, passing: Sequence[str]) -> ir.Node | None:
    """The node that a value comes from, behind none but operators that are `passing`."""
    node = value.producer()
    while node is not None and is_operator(node, *passing):
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def find_readings(
    graph: ir.Model,
    outputs: Mapping[str, np.ndarray],
    targets: Mapping[str, Target],
    options: TrainingOptions,
    whole: bool,
) -> dict[str, Reading]:
    """By output of floats. `outputs` hold a few samples of each as rows; `whole`: a row is all that a call returned.

    Labels say whether it scores classes, or the recipe, or a Softmax; a matrix of scores looks as if. Where a change of
    shape lies behind the Softmax, and where classes have a Sigmoid each, the output is read as the probabilities it is.
    """
    found = {}
    for name, rows in outputs.items():
        if rows.dtype.kind != "f":
            continue
        softmax, squashed = softmax_behind(graph, name), squashed_by(graph, name)
        softmax_axis = None if softmax is None else softmax.axis + whole
        kind = options.kinds.get(name)
        axis, certain = _class_axis(rows, targets.get(name), kind, softmax_axis, squashed == "Softmax", whole)
        if softmax is not None and axis is not None and softmax_axis == axis:
            found[name] = Reading(name, softmax.scores, axis, certain)
        else:
            probabilities = softmax is None and squashed is not None and axis is not None and certain
            found[name] = Reading(name, name, axis, certain, probabilities)
    return found


def _class_axis(
    rows: np.ndarray, target: Target | None, kind: str | None, softmax_axis: int | None, distributed: bool, whole: bool
) -> tuple[int | None, bool]:
    """Where classes lie among the axes of the rows, and whether that is certain; `distributed`: a Softmax made them,
    whatever their shape was then.
    """
    if target is not None:
        return target.axis, True
    if kind == "numbers":
        return None, True
    if softmax_axis is not None:
        return softmax_axis, True
    rank = rows.ndim - whole
    axis = scores_axis(rank) + whole
    several = rank > 1 and rows.shape[axis] > 1
    if kind == "classes" and several:
        return axis, True
    return (axis, distributed) if several and rank == MATRIX_RANK else (None, True)
