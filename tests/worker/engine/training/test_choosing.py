"""Which epoch is kept: what held-out samples tell apart, and what they do not."""

import numpy as np
import pytest

from worker.engine.training.choosing import Choice
from worker.engine.training.judging import Judgement

SAMPLES = 800


def judged(wrong: range | list[int], loss: float = 1.0) -> Judgement:
    """Of samples that are right but for those."""
    right = np.ones(SAMPLES)
    right[list(wrong)] = 0.0
    return Judgement(loss, "top1", float(right.mean()), decides=True, each=right)


def chosen(*epochs: Judgement, start: Judgement | None = None) -> int:
    choice = Choice()
    if start is not None:
        choice.begin(start)
    for number, epoch in enumerate(epochs, start=1):
        choice.takes(epoch, number)
    return choice.epoch


@pytest.mark.parametrize(
    ("wrong", "loss", "kept"),
    [
        pytest.param(range(80), 2.0, True, id="clearly-more-right"),
        pytest.param(range(120), 0.1, False, id="clearly-fewer-right"),
        pytest.param(range(100), 0.5, True, id="as-many-for-less-loss"),
        pytest.param(range(100), 1.0, False, id="the-same"),
        # 2 more of 800 wrong may be chance: 2 discordant pairs, p = 0.25 by McNemar's exact test.
        pytest.param(range(102), 0.5, True, id="two-fewer-right-for-less-loss"),
        pytest.param(range(98), 1.5, False, id="two-more-right-for-more-loss"),
        pytest.param(range(104), 0.5, False, id="four-fewer-right"),
        # As many, and others: they are compared sample by sample.
        pytest.param(range(700, 780), 0.5, True, id="others-right-for-less-loss"),
        pytest.param(range(80), float("nan"), False, id="no-number"),
    ],
)
def test_weights_of_before_stay_but_for_more_that_is_right_or_less_loss(
    wrong: range, loss: float, *, kept: bool
) -> None:
    assert judged(wrong, loss).improves_on(judged(range(100))) is kept


@pytest.mark.parametrize("before", [float("nan"), float("inf")])
@pytest.mark.parametrize(("loss", "kept"), [(1.0, True), (float("nan"), False), (float("inf"), False)])
def test_a_finite_loss_is_better_than_one_that_is_not(before: float, loss: float, *, kept: bool) -> None:
    assert Judgement(loss).improves_on(Judgement(before)) is kept


def test_the_last_of_the_epochs_that_are_not_told_apart_is_kept() -> None:
    """The first is two of 800 ahead by chance: what the later ones learned is not given up for that."""
    assert chosen(judged(range(7)), judged([*range(5), 90, 91, 92, 93]), judged(range(9)), start=judged(range(60))) == 3


def test_an_epoch_that_is_as_often_right_and_wrong_with_certainty_is_not_kept() -> None:
    assert chosen(judged(range(9), loss=0.1), judged(range(9), loss=0.3), start=judged(range(60))) == 1


def test_an_epoch_that_is_told_from_the_best_is_not_kept() -> None:
    """Four samples of 800 that only the best had right: two standard errors."""
    assert chosen(judged(range(9)), judged(range(13)), start=judged(range(60))) == 1


def test_an_epoch_that_learned_its_samples_by_heart_is_not_kept() -> None:
    assert chosen(judged(range(9)), judged(range(40)), judged(range(45)), start=judged(range(60))) == 1


def test_no_epoch_is_kept_that_is_no_better_than_what_was_before() -> None:
    start = judged(range(9), loss=0.3)
    assert chosen(judged(range(10), loss=0.4), judged(range(9), loss=0.35), start=start) == 0


def test_without_a_metric_that_decides_the_least_loss_is_kept() -> None:
    assert chosen(Judgement(0.5), Judgement(0.4), Judgement(0.45), start=Judgement(1.0)) == 2


def test_epochs_without_gain_are_counted_by_metric_and_loss() -> None:
    """Less loss is a gain where as many are right, and more right where the loss rises."""
    choice, counts = Choice(), []
    for number, (wrong, loss) in enumerate([(20, 1.0), (20, 0.9), (15, 1.1), (15, 1.2), (30, 0.95), (14, 2.0)]):
        choice.takes(judged(range(wrong), loss), number)
        counts.append(choice.without_gain)
    assert counts == [0, 0, 0, 1, 2, 0]


@pytest.mark.parametrize("cut", range(4))
def test_a_choice_goes_on_as_if_it_had_never_been_interrupted(cut: int) -> None:
    """Sample by sample: what the fourth loses beside the second and gains beside the start is in no mean."""
    epochs = [judged(range(9)), judged(range(7)), judged(range(60)), judged(range(700, 708)), judged(range(20))]
    choice = Choice()
    choice.begin(judged(range(80), loss=0.5))
    for number, epoch in enumerate(epochs):
        if number == cut:
            choice = Choice.restored(choice.facts(), choice.tensors())
        choice.takes(epoch, number + 1)
    assert (choice.epoch, choice.judged, choice.without_gain) == (4, 5, 3)
    assert choice.kept is not None
    assert Choice.restored(choice.facts(), choice.tensors()).kept == choice.kept
    assert choice.tensors().keys() == {"start", "best", "kept"}
