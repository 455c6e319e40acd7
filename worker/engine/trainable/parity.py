"""Whether the module computes what ONNX Runtime does, node by node.

Each node is fed what ONNX Runtime fed it, so that errors do not add up, and the node that is wrong is the one named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker.engine.model_file import ModelFile
from worker.engine.sessions import NONE, Feed, open_session, run_session, session_options
from worker.engine.trainable.arrays import NotTrainable, array_from, tensor_from
from worker.engine.trainable.exposing import expose
from worker.engine.trainable.module import Step, TrainableGraph

RTOL = 1e-4
# A difference of equal numbers, or the sine of a half turn, has no magnitude of its own: below this share of the
# magnitude that goes in, a difference is rounding. Masks go in with 1e38, which says nothing of the rest.
ROUNDING = 1e-6
LARGEST_INPUT = 10.0
# Values of so many nodes are held at a time.
NODES_AT_A_TIME = 64
# ONNX Runtime draws other random numbers, and the module draws none until it trains.
RANDOM = frozenset({"Dropout"})


class Unfaithful(NotTrainable):
    code, title = "import_differs", "The model cannot be trained: torch computes something else"


@dataclass(frozen=True)
class Parity:
    """What was compared. Errors are the largest difference over the largest magnitude of the tensor."""

    nodes: int
    worst_node_error: float
    output_error: float
    """Of the outputs of the whole, where the errors of all nodes have added up."""


def check_parity(
    model: ModelFile, module: TrainableGraph, feed: Feed, scratch: Path, threads: int, rtol: float = RTOL
) -> Parity:
    """Compare every node of `module`, which is on the CPU in `eval()` mode, on one call of `model`.

    Raises:
        Unfaithful: a node differs by more than `rtol` of its output's magnitude; the first one is named.
        ModelFails: ONNX Runtime does not run the model.

    """
    options = session_options(threads, NONE)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch computes in between
    every = (name for step in module.steps for name in step.outputs)
    session = open_session(expose(model, every, scratch / "parity").path, threads, options)
    constants = module.constants()
    given = {**constants, **{name: tensor_from(array) for name, array in feed.items()}}
    worst, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(module.steps), NODES_AT_A_TIME):
            steps = module.steps[start : start + NODES_AT_A_TIME]
            names = sorted(_values_of(steps, given))
            values = dict(zip(names, run_session(session, feed, names), strict=True)) if names else {}
            for step in steps:
                if step.operator.name not in RANDOM:
                    worst = max(worst, _checked(step, given, values, rtol))
                    count += 1
        made = module({name: tensor_from(array) for name, array in feed.items()})
    answers = dict(zip(module.outputs, run_session(session, feed, module.outputs), strict=True))
    errors = [difference(answers[name], array_from(one))[1] for name, one in made.items()]
    return Parity(count, worst, max(errors, default=0.0))


def _values_of(steps: list[Step], given: dict[str, Any]) -> set[str]:
    read = {name for step in steps for name in step.inputs if name and name not in given}
    return read | {name for step in steps for name in step.outputs if name}


def _checked(step: Step, given: dict[str, torch.Tensor], values: Feed, rtol: float) -> float:
    """The worst error of the node's outputs."""
    arguments = [_argument(name, given, values) for name in step.inputs]
    worst, floor = 0.0, ROUNDING * _magnitude(arguments)
    for name, array in _made(step, arguments):
        fault, error = difference(values[name], array, rtol, floor)
        if fault is not None:
            raise Unfaithful(
                f"Node {step.node!r} ({step.operator.name}) gives another {name!r} in torch than in ONNX Runtime: "
                f"{fault}.",
                "Leave out the passes that train, and report the model: this is a fault of Lathe's.",
            )
        worst = max(worst, error)
    return worst


def _argument(name: str, given: dict[str, torch.Tensor], values: Feed) -> torch.Tensor | None:
    if not name:
        return None
    return given[name] if name in given else tensor_from(values[name])


def _magnitude(arguments: list[torch.Tensor | None]) -> float:
    """Of the smallest tensor of floats that goes in, zeros aside; 1 where none does."""
    floats = [one[one.isfinite()] for one in arguments if one is not None and one.is_floating_point()]
    sizes = [float(one.abs().max()) for one in floats if one.numel() and one.any()]
    return min([*sizes, LARGEST_INPUT]) if sizes else 1.0


def _made(step: Step, arguments: list[torch.Tensor | None]) -> Iterator[tuple[str, np.ndarray]]:
    made = step.run(arguments, torch.device("cpu"), training=False)
    for name, tensor in zip(step.outputs, made, strict=False):
        if name:
            yield name, array_from(tensor)


def difference(
    wanted: np.ndarray, found: np.ndarray, rtol: float = RTOL, floor: float = ROUNDING
) -> tuple[str | None, float]:
    """What differs, in words, or None; and the error beyond `floor` relative to the magnitude of `wanted`."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return f"{wanted.dtype} {list(wanted.shape)} became {found.dtype} {list(found.shape)}", np.inf
    if wanted.dtype.kind in "biu":
        same = bool(np.array_equal(wanted, found))
        return (None, 0.0) if same else (f"{int((wanted != found).sum())} of {wanted.size} elements", np.inf)
    coarsest = 8 * float(np.finfo(wanted.dtype).eps) if wanted.dtype.kind == "f" else rtol
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], found[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return "NaN or infinity elsewhere", np.inf
    magnitude = float(np.abs(wanted[finite]).max(initial=0.0))
    gap = float(np.abs(wanted[finite] - found[finite]).max(initial=0.0))
    error = max(0.0, gap - floor) / max(magnitude, floor, float(np.finfo(np.float32).tiny))
    return None if error <= max(rtol, coarsest) else f"off by {error:.1e} of its magnitude", error
