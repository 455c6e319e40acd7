"""The terms of a lesson."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worker.engine.training.batches import Batch
from worker.engine.training.features import Pair
from worker.engine.training.objective import Feature, Hard, Lessons, Soft, Weights
from worker.engine.training.readings import Reading
from worker.engine.training.targets import Target


@pytest.mark.parametrize("certain", [True, False], ids=["scores", "looks-like-scores"])
def test_a_teachers_probabilities_teach_what_its_scores_would(certain: bool) -> None:
    """They lie between 0 and 1, and scores do not: to be near them in value is no aim."""
    scores = torch.tensor([[2.0, -3.0, 0.5], [0.0, 4.0, -1.0]])
    found = {"y": torch.zeros(2, 3)}
    lessons = Lessons(Weights(alpha=1.0), soft=[Soft(Reading("y", "y", 1, certain), "teacher", probabilities=True)])
    batch = _batch(scores.softmax(dim=1))
    assert float(lessons({"y": scores + 7.0}, batch)["loss"]) == pytest.approx(0.0, abs=1e-6)
    assert float(lessons(found, batch)["loss"]) > 0.1


def test_masked_scores_are_learned_from_probabilities_as_from_scores() -> None:
    scores = torch.tensor([[2.0, -torch.inf, 0.5], [0.0, 4.0, -torch.inf]])
    found = {"y": torch.where(scores.isfinite(), 0.0, scores)}
    losses = []
    for probabilities, wanted in ((False, scores), (True, scores.softmax(dim=1))):
        lessons = Lessons(Weights(alpha=1.0), soft=[Soft(Reading("y", "y", 1), "teacher", probabilities)])
        losses.append(float(lessons(found, _batch(wanted))["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert 0.1 < losses[0] < torch.inf


def test_probabilities_learn_what_their_scores_would() -> None:
    """From labels and from a teacher: they are no scores themselves."""
    scores, taught = torch.tensor([[2.0, -3.0, 0.5], [0.0, 4.0, -1.0]]), torch.tensor([[1.0, 0.0, 2.0]] * 2)
    labels = Target("y", "label", np.array([2, 0]), 1)
    losses = []
    for probabilities, found in ((False, scores), (True, scores.softmax(dim=1))):
        reading = Reading("y", "y", 1, probabilities=probabilities)
        lessons = Lessons(Weights(alpha=1.0, gamma=1.0), [Soft(reading, "teacher")], [Hard(reading, labels)])
        batch = replace(_batch(taught), labels={"y": labels.rows(np.arange(2))})
        losses.append({name: float(term) for name, term in lessons({"y": found}, batch).items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_samples_weigh_alike_however_many_are_in_a_call() -> None:
    """Some models take one sample a call, and some of a teacher's answers are next to nothing."""
    wanted, found = torch.tensor([[10.0, 0.0], [0.0, 0.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.0]])
    lessons = Lessons(
        Weights(alpha=1.0, beta=1.0),
        soft=[Soft(Reading("y", "y", None), "teacher", power=25.0)],
        features=[Feature(Pair("y", "teacher"), power=25.0)],
    )

    def terms(*samples: int) -> list[float]:
        made = lessons({"y": found[list(samples)]}, _batch(wanted[list(samples)]))
        return [float(made[name]) for name in ("soft", "features")]

    assert terms(0) == terms(1) == terms(0, 1) == pytest.approx([0.02, 0.02])


def _batch(answers: torch.Tensor) -> Batch:
    return Batch({}, np.arange(len(answers)), {}, {"teacher": answers}, whole=False)
