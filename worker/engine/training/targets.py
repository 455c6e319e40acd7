"""Labels: which array says what which output should be."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from app.recipes.training import TrainingOptions
from worker.engine.evaluation.metrics import class_axis, class_place, scores_axis
from worker.engine.faults import UserFault

CHUNK_ELEMENTS = 1 << 22
# What makes of each score a probability of its own; a Softmax makes of all of a row one distribution.
SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})


class LabelsMismatch(UserFault):
    code, title = "labels_mismatch", "The labels do not fit the model's outputs"


@dataclass(frozen=True)
class Target:
    """`values` (N, ...) are numbers of classes, scored along `axis` of the output (n, ...); without one, numbers. A
    class that is NaN is not known, nor is a negative one.
    """

    output: str
    array: str
    values: np.ndarray
    axis: int | None
    variance: float = 1.0
    """Of `values`, where they are numbers."""
    binary: bool = False
    """Whether they are no numbers but yes (1) or no (0), one for each element of the output, which scores a yes."""
    probabilities: bool = False
    """Whether the output holds probabilities of a yes in place of scores."""
    one_hot: bool = False
    """Whether `values` mark classes by a 1 among zeros along `axis`, (N, C, ...) as the output, in place of numbers."""

    def sha256(self) -> str:
        """Of `values`. Reads a piece at a time."""
        digest = hashlib.sha256(f"{self.values.dtype.str} {self.values.shape}".encode())
        for piece in pieces(self.values):
            digest.update(np.ascontiguousarray(piece).tobytes())
        return digest.hexdigest()

    def rows(self, samples: np.ndarray) -> torch.Tensor:
        """The labels of these samples: int64, or float32."""
        dtype = np.float32 if self.axis is None else np.int64
        rows = self.values[samples]
        if self.one_hot:
            rows = rows.argmax(axis=self.axis)
        elif self.axis is not None:
            rows = _class_numbers(rows)
        with np.errstate(over="ignore"):  # the loss is no number then, and the step is not taken
            return torch.from_numpy(np.ascontiguousarray(rows, dtype))


def choose_targets(
    labels: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    options: TrainingOptions,
    squashed: Mapping[str, str] | None = None,
) -> list[Target]:
    """By output, its labels. `outputs` are a few samples of each, (n, ...); those that hold no floats learn nothing.
    `squashed`: by output, what makes probabilities of it, as `readings.squashed_by` says.

    As `options.labels` says; else by name; else the only array of whole numbers for the first output that scores its
    classes; else the only array of all for the first output of its size; else, where there is none of its size, for the
    first that scores its classes where they lie in a column, in floats or in booleans.

    Raises:
        LabelsMismatch: an output or array is missing, or does not fit.

    """
    learning = {name: one for name, one in outputs.items() if one.dtype.kind == "f"}
    named = options.labels or {name: name for name in labels if name in learning}
    for output, array in named.items():
        _check_names(output, array, labels, learning)
    if not named:
        named = _guessed(labels, learning, options)
    heads = squashed or {}
    return [
        _target(output, array, labels[array], learning[output], options, heads.get(output))
        for output, array in named.items()
    ]


def _guessed(
    labels: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], options: TrainingOptions
) -> dict[str, str]:
    whole = [name for name, values in labels.items() if values.dtype.kind in "iu"]
    only = whole if len(whole) == 1 else list(labels)
    if len(only) != 1:
        return {}
    array, values = only[0], labels[only[0]]
    as_many = [name for name, one in outputs.items() if _as_many(values, one)]
    if not whole:
        fitting = as_many or [name for name, one in outputs.items() if _holds_classes(name, values, one, options)]
    else:
        scored = [name for name, one in outputs.items() if _classes(name, values, one, options) is not None]
        flat = [name for name in scored if outputs[name].ndim > values.ndim]
        # A column is one number a sample as well: where an output holds one, that is likelier what was meant.
        fitting = flat or (as_many if len(labels) == 1 else []) or ([] if as_many else scored)
    return {fitting[0]: array} if fitting else {}


def _target(
    output: str, array: str, values: np.ndarray, answers: np.ndarray, options: TrainingOptions, squashed: str | None
) -> Target:
    classes = _classes(output, values, answers, options)
    if classes is not None:
        axis, numbers = classes
        _check_classes(output, array, numbers, answers.shape[axis])
        return Target(output, array, numbers, axis)
    if not _as_many(values, answers) or values.dtype.kind not in "fiub":
        raise LabelsMismatch(
            f"The labels {array!r} are {values.dtype} {list(values.shape)}; the output {output!r} is "
            f"{[len(values), *answers.shape[1:]]}: they are neither numbers of its classes nor values of it.",
            "Give the number of the class of each sample, or as many numbers as the output holds.",
        )
    if options.kinds.get(output) == "numbers" or not _are_binary(values):
        return Target(output, array, values, None, _variance(values))
    axis = scores_axis(answers.ndim)
    marked = values.reshape(len(values), *answers.shape[1:])
    if squashed not in SIGMOIDS and _is_one_hot(marked, axis):
        return Target(output, array, marked, axis, one_hot=True)
    return Target(output, array, values, None, binary=True, probabilities=squashed is not None)


def _classes(
    output: str, values: np.ndarray, answers: np.ndarray, options: TrainingOptions
) -> tuple[int, np.ndarray] | None:
    """Where the output scores classes that `values` number, and those without an axis of one in that place; None where
    they do not. Whole floats number classes too: of values the output has more than there are labels.
    """
    if values.dtype.kind not in "iubf" or options.kinds.get(output) == "numbers":
        return None
    shape = [len(answers), *values.shape[1:]]
    axis, column = class_place(answers.shape, shape) or (None, False)
    numbers = values.squeeze(axis) if column else values
    if column and class_axis(answers.shape, [len(answers), *numbers.shape[1:]]) != axis:
        return None  # without that axis nothing tells which one has the scores
    if axis is None or (values.dtype.kind == "f" and not _are_whole(values)):
        return None
    return axis, numbers


def _holds_classes(output: str, values: np.ndarray, answers: np.ndarray, options: TrainingOptions) -> bool:
    """Whether `values` number classes of the output, and none that it does not have."""
    classes = _classes(output, values, answers, options)
    return classes is not None and 0 <= _extremes(values)[1] < answers.shape[classes[0]]


def _as_many(values: np.ndarray, answers: np.ndarray) -> bool:
    return math.prod(values.shape[1:]) == math.prod(answers.shape[1:])


def _are_binary(values: np.ndarray) -> bool:
    """Whether whole numbers are all 0 or 1."""
    return values.dtype.kind in "iub" and all(((rows == 0) | (rows == 1)).all() for rows in pieces(values))


def _is_one_hot(values: np.ndarray, axis: int) -> bool:
    """Whether of the classes along `axis` one is marked, everywhere. Reads a piece at a time."""
    if axis == 0 or values.shape[axis] == 1:
        return False
    return all((np.count_nonzero(rows, axis=axis) == 1).all() for rows in pieces(values))


def check_kinds(outputs: Mapping[str, np.ndarray], options: TrainingOptions) -> None:
    """`outputs` as in `choose_targets`.

    Raises:
        LabelsMismatch: `options.kinds` names none of them.

    """
    learning = [name for name, one in outputs.items() if one.dtype.kind == "f"]
    for output in options.kinds:
        if output not in learning:
            raise LabelsMismatch(
                f"`kinds` names the output {output!r}; outputs of floats, a row a sample, are "
                f"{', '.join(learning) or 'none'}.",
                "Name one of these.",
            )


def _check_names(output: str, array: str, labels: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    if output not in outputs:
        raise LabelsMismatch(
            f"`labels` names the output {output!r}; outputs of floats, a row a sample, are "
            f"{', '.join(outputs) or 'none'}.",
            "Name one of these.",
        )
    if array not in labels:
        raise LabelsMismatch(
            f"`labels` names the array {array!r}; beside the model's inputs the training data has "
            f"{', '.join(sorted(labels)) or 'none'}.",
            "Name one of these.",
        )


def _check_classes(output: str, array: str, values: np.ndarray, classes: int) -> None:
    lowest, highest = _extremes(values)
    if not 0 <= highest < classes:
        raise LabelsMismatch(
            f"The labels {array!r} go from {lowest} to {highest}; the output {output!r} scores {classes} classes, "
            f"0 to {classes - 1}.",
            "Number the labels as the output numbers its classes, from 0; negative ones are not counted.",
        )


def _class_numbers(rows: np.ndarray) -> np.ndarray:
    return np.nan_to_num(rows, nan=-1.0) if rows.dtype.kind == "f" else rows


def _extremes(values: np.ndarray) -> tuple[int, int]:
    """Of numbers of classes the lowest and the highest. Reads a piece at a time."""
    found = [(int(rows.min()), int(rows.max())) for rows in map(_class_numbers, pieces(values))]
    return min(lowest for lowest, _ in found), max(highest for _, highest in found)


def _are_whole(values: np.ndarray) -> bool:
    """Of floats: whether all are whole numbers, or NaN. Reads a piece at a time."""
    return all((np.isnan(rows) | (np.isfinite(rows) & (rows == np.rint(rows)))).all() for rows in pieces(values))


def pieces(values: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive rows, about `CHUNK_ELEMENTS` elements at a time."""
    step = max(1, CHUNK_ELEMENTS // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _variance(values: np.ndarray) -> float:
    """Of those that are finite in float32, as they are learned; 1 where all are alike. Reads a piece at a time."""
    count, total, squares = 0, 0.0, 0.0
    for rows in pieces(values):
        with np.errstate(over="ignore"):
            piece = rows.astype(np.float32).astype(np.float64)
        piece = piece[np.isfinite(piece)]
        count, total, squares = count + piece.size, total + float(piece.sum()), squares + float((piece**2).sum())
    mean = total / max(1, count)
    variance = squares / max(1, count) - mean**2
    return variance if variance > 1e-12 * max(1.0, mean**2) else 1.0
