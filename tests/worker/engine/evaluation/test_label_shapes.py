"""What submission refuses by shapes alone is what a worker could not have scored either."""

from itertools import product

import numpy as np
import pytest

from app import errors
from app.datasets.inspection import ArraySpec
from app.jobs.metric_choice import choose_metric
from app.models.inspection import ModelInspection
from app.recipes.request import Metric, MetricName
from worker.engine.evaluation import metrics

SAMPLES = 2
INSPECTED = {
    "opset": 17,
    "ir_version": 9,
    "domains": {},
    "operators": {},
    "parameter_count": 0,
    "mac_count": 0,
    "trainable": True,
}
AXES = [list(axes) for rank in range(4) for axes in product((1, 2, 3), repeat=rank)]


def refused(metric: MetricName, dtype: str, row: list[int], labels: list[int]) -> bool:
    facts = ModelInspection.model_validate(
        {
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 4]}],
            "outputs": [{"name": "y", "dtype": dtype, "shape": ["N", *row]}],
        }
        | INSPECTED
    )
    arrays = [
        ArraySpec(name="x", dtype="float32", shape=[SAMPLES, 4]),
        ArraySpec(name="label", dtype="int64", shape=[SAMPLES, *labels]),
    ]
    try:
        choose_metric(Metric(name=metric), facts, arrays)
    except errors.MetricMismatch:
        return True
    return False


def scored(metric: MetricName, dtype: str, row: list[int], labels: list[int]) -> bool:
    output, truth = np.zeros((SAMPLES, *row), dtype), np.zeros((SAMPLES, *labels), np.int64)
    try:
        if metric == "mse":
            metrics.squared_error(output, truth)
        else:
            metrics.top_k(output, truth, 5 if metric == "top5" else 1)
            metrics.classes(output, truth)  # for f1, which comes with every one of them
    except metrics.MetricMismatch:
        return False
    return True


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("metric", ["top1", "top5", "mse"])
def test_submission_refuses_nothing_that_a_worker_scores(metric: MetricName, dtype: str) -> None:
    pairs = [(row, labels) for row in AXES for labels in AXES]
    assert [pair for pair in pairs if refused(metric, dtype, *pair) and scored(metric, dtype, *pair)] == []


def test_submission_refuses_what_a_worker_could_not_score() -> None:
    pairs = [(row, labels) for row in AXES for labels in AXES]
    missed = [pair for pair in pairs if not refused("top1", "float32", *pair) and not scored("top1", "float32", *pair)]
    assert missed == []
