"""Whether labels can be what a metric takes them for: numbers of the classes that an output scores, counted from 0."""

from collections.abc import Sequence

import numpy as np

from app.jobs.report import Quality
from worker.engine.evaluation.metrics import MetricMismatch, class_place

TOP = {"top5": 5}


def class_count(output: Sequence[int], labels: Sequence[int], dtype: str) -> int | None:
    """Classes that a float output of this shape scores for labels of this shape; None where it scores none."""
    place = class_place(output, labels) if dtype.startswith("float") else None
    return None if place is None else output[place[0]]


def check_labels(name: str, labels: np.ndarray, output: str, classes: int | None) -> None:
    """Nothing is asked of labels for an output that scores no classes (None).

    Raises:
        MetricMismatch: a label is no class of the output, or none is. Negative ones are not counted: see `top_k`.

    """
    known = labels >= 0
    if classes is None or (known.any() and np.max(labels, where=known, initial=0) < classes):
        return
    raise MetricMismatch(
        f"The labels {name!r} go from {labels.min()} to {labels.max()}; the output {output!r} scores {classes} "
        f"classes, 0 to {classes - 1}.",
        "Number the labels as the output numbers its classes, from 0; negative ones are not counted. Or name another "
        "output or label array in `metric`.",
    )


def guessing(original: Quality, classes: int | None) -> str | None:
    """In words, where the original itself does no better than guessing: a contract on that holds for any model.

    `classes` is None where the output holds class numbers, and not scores.
    """
    if original.value is None or original.low is None:
        return None
    chance = 0.0 if classes is None else min(1.0, TOP.get(original.name, 1) / classes)
    if original.low > chance:
        return None
    among = "" if classes is None else f" among {classes} classes ({chance:.3g})"
    return (
        f"{original.name} of the original is {original.value:.3g} over {original.sample_count:,} samples: no better "
        f"than guessing{among}, so that a contract on it proves nothing. Check that the labels {original.labels!r} "
        f"number classes as the output {original.output!r} does."
    )
