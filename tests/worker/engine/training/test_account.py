"""What is said of a training."""

import pytest

from worker.engine.training.account import why_stopped
from worker.engine.training.choosing import Choice
from worker.engine.training.judging import Judgement
from worker.engine.training.trainer import DIVERGED, Standing, Trained


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        pytest.param(1.0, "lower `learning_rate`", id="went-astray"),
        pytest.param(float("nan"), "none before training", id="no-number-from-the-start"),
        pytest.param(float("inf"), "none before training", id="infinite-from-the-start"),
    ],
)
def test_why_the_loss_is_no_number_depends_on_what_it_was(loss: float, words: str) -> None:
    ended = Trained({}, Standing(stopped=DIVERGED), Choice(start=Judgement(loss)))
    assert words in why_stopped(ended)
