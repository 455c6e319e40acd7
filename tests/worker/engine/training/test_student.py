"""A model made ready to be trained: what is said of the data that it will be fed."""

from collections.abc import Callable

import numpy as np

from app.recipes.training import FineTune
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, perceptron
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import TrainingData
from worker.engine.training.student import prepare_student


def test_samples_of_a_part_of_a_dataset_are_named_as_they_lie_in_all_of_it(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    """A search divides a dataset among its roles."""
    model, rows = perceptron(), normal(8, 8)
    rows[[1, 6], 0] = np.nan
    given = context(model, x=rows)
    data = TrainingData(given.feeds, places=np.array([3, 10, 11, 20, 21, 30, 44, 50]))
    student = prepare_student(saved(model), data, FineTune.model_validate({"pass": "fine_tune"}), given)
    assert student.samples.tolist() == [0, 2, 3, 4, 5, 7]
    assert (
        "Left out of training and of judging: 2 of 8 samples, fed NaN or infinity (x at 10, 44, counted from 0 in the "
        "whole dataset)."
    ) in student.notes
