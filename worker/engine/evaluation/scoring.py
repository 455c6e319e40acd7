"""What single calls say about the outputs of an original and a candidate.

What is kept of a sample is a few numbers, and for F1 as many of each class in it, so memory does not grow with the size
of samples.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from app.recipes.request import Metric
from worker.engine.arrays import rows_not_finite
from worker.engine.evaluation import metrics
from worker.engine.evaluation.bootstrap import NO_CLASS, count_classes
from worker.engine.evaluation.class_labels import check_labels, class_count

Columns = dict[str, list[np.ndarray]]
TOP5_CLASSES = 6
# Columns of F1, which have a row for each class in each sample.
OF_CLASSES = frozenset({"owners", "classes", "hits", "seen"})


@dataclass
class Scores:
    """What is kept: by output, by metric, one array a batch. `metric` is the job's, `labels` arrays of all samples."""

    metric: Metric
    labels: dict[str, np.ndarray]
    outputs: dict[str, Columns] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    labelled: dict[str, Columns] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    not_finite: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    broken: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    reshaped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    classes: int | None = None
    skipped: set[str] = field(default_factory=set)
    tops: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """By output: the original's top class in each sample."""
    of_calls: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, name: str, original: np.ndarray | None, candidate: np.ndarray | None, samples: np.ndarray) -> None:
        """One output of one call, `(samples of the call, ...)` of each file; or `(1, ...)`, which all of them share and
        which counts as the first; None: it cannot be compared.

        `samples` are their indices; `count` is of the calls before.

        Raises:
            MetricMismatch: the labels do not fit what the original answers.

        """
        if original is None or candidate is None:
            self.skipped.add(name)
            return
        self._score(name, original, candidate, samples[: len(original)], each=len(samples) // len(original))
        without_score = len(samples) - len(original)
        if without_score:
            self.of_calls.add(name)
            keys = [f"{label}|{which}" for label, _ in self._labels_of(name) for which in ("original", "candidate")]
            for columns in (self.outputs[name], *(self.labelled[key] for key in keys if key in self.labelled)):
                _leave_out(columns, without_score)

    def _score(self, name: str, original: np.ndarray, candidate: np.ndarray, samples: np.ndarray, each: int) -> None:
        """`each`: how many samples of the call an answer is of."""
        reshaped = original.shape != candidate.shape
        self.reshaped[name] += each * len(samples) * reshaped
        columns = self.outputs[name]
        columns["agreement"].append(metrics.agreement(original, candidate))
        if original.dtype.kind == metrics.TEXT:  # no direction, no power, and no label: those are numbers
            return
        columns["cosine"].append(metrics.cosine(original, candidate))
        signal, noise = metrics.signal_and_noise(original, candidate)
        columns["signal"].append(signal)
        columns["noise"].append(noise)
        if metrics.looks_like_scores(original):
            self.tops[name].append(np.argmax(original, axis=1))
        broken = metrics.broken_samples(original, candidate)
        self.broken[name] += each * int(broken.sum())
        self.not_finite[name] += each * int(rows_not_finite(original).sum())
        # What has another shape is lost whatever it holds, and labels need not fit it.
        held, lost = (original, np.ones_like(broken)) if reshaped else (candidate, broken)
        for label, metric in self._labels_of(name):
            truth = np.asarray(self.labels[label][samples])
            if label == self.metric.labels and metric in metrics.CLASSIFICATION and not self.count:
                self.classes = class_count(original.shape, truth.shape, original.dtype.name)
                check_labels(label, self.labels[label], name, self.classes)
            _score_labels(self.labelled[f"{label}|original"], metric, original, truth, self.count)
            _score_labels(self.labelled[f"{label}|candidate"], metric, held, truth, self.count, lost)

    def is_one_class(self, output: str) -> bool:
        """Whether the output has a top class, the same in nearly all samples."""
        return output in self.tops and metrics.is_one_class(np.concatenate(self.tops[output]))

    def _labels_of(self, output: str) -> list[tuple[str, str]]:
        """Label arrays scored against this output, with the metric asked for: the job's, and those named as it."""
        found = []
        if self.metric.labels in self.labels and self.metric.output == output:
            found.append((str(self.metric.labels), str(self.metric.name)))
        if output in self.labels and (output, self.metric.output) != (self.metric.labels, output):
            found.append((output, "top1" if self.labels[output].dtype.kind in "iu" else "mse"))
        return found


def _leave_out(columns: Columns, count: int) -> None:
    """So many samples more that have no score."""
    for name, arrays in columns.items():
        if name not in OF_CLASSES:
            arrays.append(np.full(count, np.nan))


def _score_labels(
    columns: Columns,
    metric: str,
    output: np.ndarray,
    truth: np.ndarray,
    offset: int,
    lost: np.ndarray | None = None,
) -> None:
    """The metric asked for, and the others of its family that can be had for nothing.

    Samples that are `lost` `(N,)` are infinitely wrong, or hit no label: left out, they would make a file that answers
    NaN look better than one that errs.
    """
    lost = np.zeros(len(output), bool) if lost is None else lost
    if metric not in metrics.CLASSIFICATION:
        wrong = lost & ~np.isnan(truth.reshape(len(truth), -1)).any(axis=1)
        columns["mse"].append(np.where(wrong, np.inf, metrics.squared_error(output, truth)))
        columns["mae"].append(np.where(wrong, np.inf, metrics.absolute_error(output, truth)))
        return
    columns["accuracy" if metric == "accuracy" else "top1"].append(_hits(output, truth, 1, lost))
    many = output.shape[-1] >= TOP5_CLASSES and metrics.numbers_along_last(output, truth) is not None
    if metric == "top5" or many:
        columns["top5"].append(_hits(output, truth, 5, lost))
    known = truth >= 0
    owners = np.broadcast_to(
        np.arange(offset, offset + len(truth)).reshape((-1,) + (1,) * (truth.ndim - 1)), truth.shape
    )
    predicted = metrics.classes(output, truth)
    if lost.any():
        predicted = np.where(lost.reshape((-1,) + (1,) * (truth.ndim - 1)), NO_CLASS, predicted.astype(np.int64))
    for name, column in count_classes(truth[known], predicted[known], owners[known]).items():
        columns[name].append(column)


def _hits(output: np.ndarray, truth: np.ndarray, k: int, lost: np.ndarray) -> np.ndarray:
    """`(N,)`: as `metrics.top_k`, none of samples that are `lost`; those without a known label have no score."""
    hits = metrics.top_k(output, truth, k)
    return np.where(lost & ~np.isnan(hits), 0.0, hits)
