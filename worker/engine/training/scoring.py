"""The metric that counts samples, where outputs are such that one does."""

from collections.abc import Mapping

import numpy as np
import torch

from worker.engine.evaluation.metrics import top_k
from worker.engine.trainable.arrays import array_from
from worker.engine.training.batches import Batch
from worker.engine.training.judging import Score
from worker.engine.training.objective import Hard, Lessons, Soft


def score_of(lessons: Lessons) -> Score | None:
    """Top-1 where labels number classes: it decides. Else how often student and teacher have the same top class."""
    hard = next((one for one in lessons.hard if one.target.axis is not None), None)
    if hard is not None:
        return Score("top1", _Right(hard), decides=True)
    soft = next((one for one in lessons.soft if one.reading.axis is not None), None)
    return None if soft is None else Score("agreement", _Agreeing(soft), decides=False)


class _Right:
    """Of each sample the share of its labels that have the highest score."""

    def __init__(self, hard: Hard) -> None:
        self.hard = hard

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        labels = array_from(batch.labels[self.hard.target.output])
        return top_k(array_from(batch.rows(made[self.hard.reading.value])), labels, 1)


class _Agreeing:
    """Of each sample the share of its rows of scores whose top class is the teacher's."""

    def __init__(self, soft: Soft) -> None:
        self.soft = soft

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> np.ndarray:
        found = batch.rows(made[self.soft.reading.value])
        wanted, axis = batch.answers[self.soft.teacher], self.soft.reading.axis
        same = array_from(found.argmax(dim=axis) == wanted.argmax(dim=axis))
        shares: np.ndarray = same.reshape(len(same), -1).mean(axis=1)
        return shares
