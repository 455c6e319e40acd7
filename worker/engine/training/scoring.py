"""The metric that counts samples, where outputs are such that one does."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from worker.engine.evaluation.metrics import agreement, top_k
from worker.engine.trainable.arrays import array_from
from worker.engine.training.batches import Batch
from worker.engine.training.judging import Score
from worker.engine.training.objective import Hard, Lessons, Soft


def score_of(lessons: Lessons) -> Score | None:
    """Top-1 where labels number classes: it decides, unless other labels do not, of which it knows nothing. Where they
    say yes or no, how often the likelier one is right: where few are yes, no model is above one that always says no,
    so the loss decides. The share of their variance that is explained, R2, where all are numbers. Without labels how
    often student and teacher have the same top class.
    """
    classes = [one for one in lessons.hard if one.target.axis is not None]
    if classes:
        return Score("top1", _Right(classes), decides=len(classes) == len(lessons.hard))
    binary = [one for one in lessons.hard if one.target.binary]
    if binary:
        return Score("accuracy", _Likelier(binary), decides=False)
    if lessons.hard:
        return Score("r2", _Explained(lessons.hard), decides=False)
    soft = next((one for one in lessons.soft if one.reading.axis is not None), None)
    return None if soft is None else Score("agreement", _Agreeing(soft), decides=False)


class _Right:
    """Of each sample the share of its labels that have the highest score, the mean over outputs."""

    def __init__(self, hard: Sequence[Hard]) -> None:
        self.hard = hard

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        shares = [
            top_k(array_from(batch.rows(made[one.reading.value])), array_from(batch.labels[one.target.output]), 1)
            for one in self.hard
        ]
        return _mean(shares)


class _Likelier:
    """Of each sample the share of its labels, yes or no, that are the likelier answer, the mean over outputs."""

    def __init__(self, hard: Sequence[Hard]) -> None:
        self.hard = hard

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        shares = []
        for one in self.hard:
            answers, labels = _answers_and_labels(one, made, batch)
            right = (answers > (0.5 if one.target.probabilities else 0.0)) == (labels == 1)
            shares.append(right.reshape(len(right), -1).mean(axis=1))
        return _mean(shares)


class _Explained:
    """Of each sample 1 less its squared error over the variance of the labels, the mean over outputs."""

    def __init__(self, hard: Sequence[Hard]) -> None:
        self.hard = hard

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        found = []
        for one in self.hard:
            answers, labels = _answers_and_labels(one, made, batch)
            errors = np.where(np.isfinite(labels), np.square(answers.astype(np.float64) - labels), np.nan)
            found.append(1 - _mean(list(errors.reshape(len(errors), -1).T)) / one.target.variance)
        return _mean(found)


def _answers_and_labels(one: Hard, made: Mapping[str, torch.Tensor], batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Of one shape."""
    answers = array_from(batch.rows(made[one.reading.value]))
    return answers, array_from(batch.labels[one.target.output]).reshape(answers.shape)


def _mean(each: Sequence[np.ndarray]) -> np.ndarray:
    """Of arrays `(n,)`, entry by entry, without NaN; NaN where there is nothing else."""
    stacked = np.stack(each)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    means: np.ndarray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means


class _Agreeing:
    """Of each sample the share of its rows of scores whose top class is the teacher's."""

    def __init__(self, soft: Soft) -> None:
        self.soft = soft

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        found, wanted = batch.rows(made[self.soft.reading.value]), batch.answers[self.soft.teacher]
        exact, given = (self._scores(array_from(one)) for one in (wanted, found))
        shares: np.ndarray = agreement(exact, given).reshape(len(found), -1).mean(axis=1)
        return shares

    def _scores(self, array: np.ndarray) -> np.ndarray:
        """A row for each place that has scores of its own."""
        axis = -1 if self.soft.reading.axis is None else self.soft.reading.axis
        return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
