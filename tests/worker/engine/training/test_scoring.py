"""What of held-out samples is counted, and which epoch is therefore kept."""

import numpy as np
import pytest
import torch

from worker.engine.training.batches import Batch
from worker.engine.training.objective import Hard, Lessons, Soft, Weights
from worker.engine.training.readings import Reading
from worker.engine.training.scoring import score_of
from worker.engine.training.targets import Target

SAMPLES = np.arange(4)


def _hard(output: str, *, classes: bool, values: np.ndarray) -> Hard:
    axis = 1 if classes else None
    variance = 1.0 if classes else float(values.var())
    return Hard(Reading(output, output, axis), Target(output, output, values, axis, variance))


def _batch(**labels: np.ndarray) -> Batch:
    return Batch({}, SAMPLES, {name: torch.from_numpy(one) for name, one in labels.items()}, {}, whole=False)


CLASSES = np.array([0, 1, 1, 0])
NUMBERS = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
RIGHT = torch.eye(2)[torch.from_numpy(CLASSES)]


def test_every_output_with_classes_counts() -> None:
    hard = [_hard("a", classes=True, values=CLASSES), _hard("b", classes=True, values=CLASSES)]
    score = score_of(Lessons(Weights(gamma=1.0), hard=hard))
    assert score is not None
    assert (score.name, score.decides) == ("top1", True)
    found = score.measure({"a": RIGHT, "b": RIGHT.flip(1)}, _batch(a=CLASSES, b=CLASSES))
    assert found.tolist() == [0.5] * 4


def test_classes_do_not_decide_over_numbers_beside_them() -> None:
    hard = [_hard("a", classes=True, values=CLASSES), _hard("b", classes=False, values=NUMBERS)]
    score = score_of(Lessons(Weights(gamma=1.0), hard=hard))
    assert score is not None
    assert (score.name, score.decides) == ("top1", False)


def test_of_yes_and_no_the_likelier_is_counted_and_decides_nothing() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    scores = torch.tensor([[0.4, 0.3], [-1.0, -2.0], [3.0, 0.6], [2.0, -0.7]])
    for answers, probabilities in ((scores, False), (scores.sigmoid(), True)):
        target = Target("a", "a", labels, None, binary=True, probabilities=probabilities)
        score = score_of(Lessons(Weights(gamma=1.0), hard=[Hard(Reading("a", "a", None), target)]))
        assert score is not None
        assert (score.name, score.decides) == ("accuracy", False)
        assert score.measure({"a": answers}, _batch(a=labels.astype(np.float32))).tolist() == [0.5, 1.0, 1.0, 0.0]


def test_of_numbers_the_share_of_their_variance_is_counted() -> None:
    score = score_of(Lessons(Weights(gamma=1.0), hard=[_hard("b", classes=False, values=NUMBERS)]))
    assert score is not None
    assert (score.name, score.decides) == ("r2", False)
    labels = NUMBERS.copy()
    assert score.measure({"b": torch.from_numpy(NUMBERS)}, _batch(b=labels)).mean() == 1.0
    mean = torch.full((4, 1), 2.5)
    assert score.measure({"b": mean}, _batch(b=labels)).mean() == pytest.approx(0.0)
    labels[0] = np.nan
    assert np.isnan(score.measure({"b": mean}, _batch(b=labels))).tolist() == [True, False, False, False]


def test_without_labels_agreement_is_counted_and_does_not_decide() -> None:
    score = score_of(Lessons(Weights(alpha=1.0), soft=[Soft(Reading("a", "a", 1), "teacher")]))
    assert score is not None
    assert (score.name, score.decides) == ("agreement", False)


def test_agreement_is_the_share_of_places_with_the_same_class_of_what_is_not_broken() -> None:
    score = score_of(Lessons(Weights(alpha=1.0), soft=[Soft(Reading("a", "a", 1), "teacher")]))
    assert score is not None
    # Two places of two classes, whose scores lie along the axis before.
    wanted = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).repeat(4, 1, 1)
    found = wanted.clone()
    found[1], found[2, :, 0], found[3, 0, 0] = wanted[1].flip(0), torch.tensor([1.0, 3.0]), torch.nan
    batch = Batch({}, SAMPLES, {}, {"teacher": wanted}, whole=False)
    assert score.measure({"a": found}, batch).tolist() == [1.0, 0.0, 0.5, 0.5]
