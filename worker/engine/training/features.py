"""Inner tensors of teacher and student by pairs, and the projections that make two widths one.

Romero et al., FitNets (https://arxiv.org/abs/1412.6550): a student learns what the teacher computes within. A teacher
that was pruned has a student with its own names; another architecture has tensors of the same place in space.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from worker.engine.faults import UserFault
from worker.engine.graph import qualified
from worker.engine.structure.carrying import ELEMENTWISE, POOLS, UNARY

# Pairs that are taken without being named: a few, spread over the depth, carry what all would.
MOST_PAIRS = 4
# Rows that a projection is fitted on, and what keeps that solvable, as a share of the mean square.
MOST_ROWS, RIDGE = 8192, 1e-4
IMAGE_RANK = 4
CARRIERS = frozenset({"Add", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM"})
CARRIERS |= {"LayerNormalization", "MatMul", "Relu"}
CARRIERS |= {"com.microsoft.FusedConv", "com.microsoft.FusedGemm", "com.microsoft.FusedMatMul"}
# What has channels on the second axis whatever its rank, and what leaves them where they are.
CONVOLVING = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "com.microsoft.FusedConv"})
KEEPING = frozenset({*UNARY, *ELEMENTWISE, *POOLS, "Concat", "PRelu"})


class NoSuchFeature(UserFault):
    code, title = "no_such_feature", "A feature that the recipe names is not there"


@dataclass(frozen=True)
class Pair:
    """Values by name. `axis`: of their rows, where channels lie that are projected; None: they are compared as is."""

    student: str
    teacher: str
    axis: int | None = None


@dataclass(frozen=True)
class Inner:
    """Inner values of a network by name, a few rows of each. `convolved`: see there; `whole`: a row is a whole call."""

    rows: Mapping[str, np.ndarray]
    convolved: Collection[str] = frozenset()
    whole: bool = False

    def channels(self, name: str) -> int:
        """The axis of the rows: the second of what was convolved and of images (N, C, H, W), the last of others."""
        rank = self.rows[name].ndim - self.whole
        second = rank > 1 and (rank >= IMAGE_RANK or name in self.convolved)
        return (1 if second else rank - 1) + self.whole


def convolved(graph: ir.Model) -> frozenset[str]:
    """What convolutions make, and what is made of it without its channels being moved."""
    found: set[str] = set()
    for node in graph.graph:
        operator = qualified(node)
        carried = operator in KEEPING and any(value is not None and value.name in found for value in node.inputs)
        if operator in CONVOLVING or carried:
            found.update(value.name or "" for value in node.outputs)
    return frozenset(found)


def candidates(graph: ir.Model) -> list[str]:
    """What nodes that carry features make, in the order of the graph, but for its outputs."""
    outputs = {value.name for value in graph.graph.outputs}
    made = [node.outputs[0].name or "" for node in graph.graph if qualified(node) in CARRIERS]
    return [name for name in made if name and name not in outputs]


def match_features(student: Inner, teacher: Inner, asked: Mapping[str, str]) -> list[Pair]:
    """Pairs as asked; else up to four of one name; else the last of each place in space.

    Raises:
        NoSuchFeature: one that was asked for is not there, or the two can be made one by no projection.

    """
    if asked:
        return [_asked(ours, theirs, student, teacher) for ours, theirs in asked.items()]
    same = [name for name in student.rows if name in teacher.rows and _pair(name, name, student, teacher) is not None]
    if same:
        spread = {same[(len(same) * (number + 1)) // MOST_PAIRS - 1] for number in range(MOST_PAIRS) if len(same) > 1}
        chosen = [name for name in same if name in (spread or same)]
        return [pair for name in chosen if (pair := _pair(name, name, student, teacher)) is not None]
    theirs, ours = _by_place(teacher), _by_place(student)
    shared = [place for place in theirs if place in ours][-MOST_PAIRS:]
    # Two networks that do not come from one another hold nothing alike channel by channel.
    return [Pair(ours[place], theirs[place], place[0]) for place in shared]


def _asked(ours: str, theirs: str, student: Inner, teacher: Inner) -> Pair:
    for name, held, whose in ((ours, student.rows, "student"), (theirs, teacher.rows, "teacher")):
        if name not in held:
            raise NoSuchFeature(
                f"`features` names the tensor {name!r}; the {whose} has none of that name that holds a row of floats "
                "for every sample.",
                f"Among its tensors are {', '.join(list(held)[-10:]) or 'none'}.",
            )
    pair = _pair(ours, theirs, student, teacher)
    if pair is None:
        raise NoSuchFeature(
            f"`features` pairs {ours!r} {list(student.rows[ours].shape[1:])} with {theirs!r} "
            f"{list(teacher.rows[theirs].shape[1:])}: they differ in more than their channels.",
            "Pair tensors of the same size in space.",
        )
    return pair


def _pair(ours: str, theirs: str, student: Inner, teacher: Inner) -> Pair | None:
    first, second = student.rows[ours].shape[1:], teacher.rows[theirs].shape[1:]
    if first == second:
        return Pair(ours, theirs)
    place = _place(ours, student)
    return Pair(ours, theirs, place[0]) if place == _place(theirs, teacher) else None


def _place(name: str, values: Inner) -> tuple[int, tuple[int, ...]]:
    """The channel axis, and the extent in space; vectors have none."""
    axis, shape = values.channels(name), values.rows[name].shape
    return axis, shape[1:axis] + shape[axis + 1 :]


def _by_place(values: Inner) -> dict[tuple[int, tuple[int, ...]], str]:
    """The last value of each place."""
    found: dict[tuple[int, tuple[int, ...]], str] = {}
    for name in values.rows:
        place = _place(name, values)
        found.pop(place, None)
        found[place] = name
    return found


def fit_projection(student: torch.Tensor, teacher: torch.Tensor, axis: int) -> nn.Parameter:
    """The linear map (C_teacher, C_student) that makes the first the second best, by least squares on these rows.

    To start anywhere else would pull the student towards noise. Both are rows with channels along `axis`.
    """
    ours, theirs = (one.detach().movedim(axis, -1).flatten(0, -2).cpu().double() for one in (student, teacher))
    step = -(-len(ours) // MOST_ROWS)
    ours, theirs = ours[::step], theirs[::step]
    gram = ours.T @ ours
    ridge = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram + ridge, ours.T @ theirs).T
    return nn.Parameter(solved.to(student.dtype).contiguous().to(student.device))


def project(features: torch.Tensor, projection: torch.Tensor, axis: int) -> torch.Tensor:
    """Channels along `axis` through the map."""
    return (features.movedim(axis, -1) @ projection.T).movedim(-1, axis)
