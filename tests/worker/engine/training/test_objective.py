"""The terms of a lesson."""

import numpy as np
import pytest
import torch

from worker.engine.training.batches import Batch
from worker.engine.training.objective import Lessons, Soft, Weights
from worker.engine.training.readings import Reading


@pytest.mark.parametrize("certain", [True, False], ids=["scores", "looks-like-scores"])
def test_a_teachers_probabilities_teach_what_its_scores_would(certain: bool) -> None:
    """They lie between 0 and 1, and scores do not: to be near them in value is no aim."""
    scores = torch.tensor([[2.0, -3.0, 0.5], [0.0, 4.0, -1.0]])
    found = {"y": torch.zeros(2, 3)}
    lessons = Lessons(Weights(alpha=1.0), soft=[Soft(Reading("y", "y", 1, certain), "teacher", probabilities=True)])
    batch = Batch({}, np.arange(2), {}, {"teacher": scores.softmax(dim=1)}, whole=False)
    assert float(lessons({"y": scores + 7.0}, batch)["loss"]) == pytest.approx(0.0, abs=1e-6)
    assert float(lessons(found, batch)["loss"]) > 0.1
