"""Inner tensors of teacher and student by pairs, and the projections that make two widths one.

Romero et al., FitNets (https://arxiv.org/abs/1412.6550): a student learns what the teacher computes within. A teacher
that was pruned has a student with its own names; another architecture has tensors of the same place in space.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from worker.engine.faults import UserFault
from worker.engine.graph import qualified

# Pairs that are taken without being named: a few, spread over the depth, carry what all would.
MOST_PAIRS = 4
# Rows that a projection is fitted on, and what keeps that solvable, as a share of the mean square.
MOST_ROWS, RIDGE = 8192, 1e-4
IMAGE_RANK = 4
CARRIERS = frozenset({"Add", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM"})
CARRIERS |= {"LayerNormalization", "MatMul", "Relu"}
CARRIERS |= {"com.microsoft.FusedConv", "com.microsoft.FusedGemm", "com.microsoft.FusedMatMul"}


class NoSuchFeature(UserFault):
    code, title = "no_such_feature", "A feature that the recipe names is not there"


@dataclass(frozen=True)
class Pair:
    """Values by name. `axis`: of their rows, where channels lie that are projected; None: they are compared as is."""

    student: str
    teacher: str
    axis: int | None = None


def candidates(graph: ir.Model) -> list[str]:
    """What nodes that carry features make, in the order of the graph, but for its outputs."""
    outputs = {value.name for value in graph.graph.outputs}
    made = [node.outputs[0].name or "" for node in graph.graph if qualified(node) in CARRIERS]
    return [name for name in made if name and name not in outputs]


def match_features(
    student: Mapping[str, np.ndarray], teacher: Mapping[str, np.ndarray], asked: Mapping[str, str]
) -> list[Pair]:
    """Pairs as asked; else up to four of one name; else the last of each place in space. Values are a few rows each.

    Raises:
        NoSuchFeature: one that was asked for is not there, or the two can be made one by no projection.

    """
    if asked:
        return [_asked(ours, theirs, student, teacher) for ours, theirs in asked.items()]
    same = [name for name in student if name in teacher and _pair(name, name, student, teacher) is not None]
    if same:
        spread = {same[(len(same) * (number + 1)) // MOST_PAIRS - 1] for number in range(MOST_PAIRS) if len(same) > 1}
        chosen = [name for name in same if name in (spread or same)]
        return [pair for name in chosen if (pair := _pair(name, name, student, teacher)) is not None]
    theirs, ours = _by_place(teacher), _by_place(student)
    shared = [place for place in theirs if place in ours][-MOST_PAIRS:]
    # Two networks that do not come from one another hold nothing alike channel by channel.
    return [Pair(ours[place], theirs[place], place[0]) for place in shared]


def _asked(ours: str, theirs: str, student: Mapping[str, np.ndarray], teacher: Mapping[str, np.ndarray]) -> Pair:
    for name, held, whose in ((ours, student, "student"), (theirs, teacher, "teacher")):
        if name not in held:
            raise NoSuchFeature(
                f"`features` names the tensor {name!r}; the {whose} has none of that name that holds a row of floats "
                "for every sample.",
                f"Among its tensors are {', '.join(list(held)[-10:]) or 'none'}.",
            )
    pair = _pair(ours, theirs, student, teacher)
    if pair is None:
        raise NoSuchFeature(
            f"`features` pairs {ours!r} {list(student[ours].shape[1:])} with {theirs!r} "
            f"{list(teacher[theirs].shape[1:])}: they differ in more than their channels.",
            "Pair tensors of the same size in space.",
        )
    return pair


def _pair(ours: str, theirs: str, student: Mapping[str, np.ndarray], teacher: Mapping[str, np.ndarray]) -> Pair | None:
    first, second = student[ours].shape[1:], teacher[theirs].shape[1:]
    if first == second:
        return Pair(ours, theirs)
    if len(first) != len(second):
        return None
    axis = _channels(len(first) + 1) - 1
    alike = first[:axis] + first[axis + 1 :] == second[:axis] + second[axis + 1 :]
    return Pair(ours, theirs, axis + 1) if alike else None


def _by_place(values: Mapping[str, np.ndarray]) -> dict[tuple[int, tuple[int, ...]], str]:
    """The last value of each extent in space, by its channel axis and that extent; vectors have none."""
    found: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, rows in values.items():
        axis = _channels(rows.ndim)
        place = (axis, rows.shape[1:axis] + rows.shape[axis + 1 :])
        found.pop(place, None)
        found[place] = name
    return found


def _channels(rank: int) -> int:
    """Of images (N, C, H, W) the second axis; of rows and sequences the last."""
    return 1 if rank >= IMAGE_RANK else rank - 1


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
