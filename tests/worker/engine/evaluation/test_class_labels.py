"""Labels that cannot be the classes of an output are refused, and a metric that shows no skill is said."""

import numpy as np
import pytest

from app.jobs.report import Quality
from app.recipes.request import Metric
from worker.engine.evaluation.class_labels import check_labels, class_count, guessing
from worker.engine.evaluation.metrics import MetricMismatch
from worker.engine.evaluation.scoring import Scores


@pytest.mark.parametrize(
    ("output", "labels", "dtype", "count"),
    [
        ([8, 10], [8], "float32", 10),
        ([8, 5, 10], [8, 5], "float16", 10),
        ([8, 3, 4, 4], [8, 4, 4], "float32", 3),
        ([8, 10], [8, 1], "float32", 10),
        ([8, 3, 4, 4], [8, 1, 4, 4], "float32", 3),
        ([8, 1], [8], "float32", None),
        ([8], [8], "int64", None),
        ([8, 10], [8, 10], "float32", None),
    ],
    ids=["scores", "tokens", "segmentation", "column", "channel", "regression", "class-numbers", "one-hot"],
)
def test_how_many_classes_an_output_scores(output: list[int], labels: list[int], dtype: str, count: int | None) -> None:
    assert class_count(output, labels, dtype) == count


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.arange(10), 10),
        (np.array([[3, -100], [-100, 0]]), 4),
        (np.array([0.0, 2.0, np.nan]), 3),
        (np.array([0, 255], np.uint8), 256),
        (np.array([False, True]), 2),
        (np.array([100]), None),
    ],
    ids=["all", "ignored-ones", "not-a-number", "unsigned", "booleans", "no-classes-known"],
)
def test_labels_of_the_outputs_classes_are_taken(labels: np.ndarray, classes: int | None) -> None:
    check_labels("label", labels, "logits", classes)


@pytest.mark.parametrize(
    ("labels", "named"),
    [(np.array([1, 4]), "from 1 to 4"), (np.array([-1, -2]), "from -2 to -1"), (np.array([100, 109]), "0 to 3")],
    ids=["counted-from-one", "none-is-counted", "of-another-numbering"],
)
def test_labels_of_other_classes_are_refused(labels: np.ndarray, named: str) -> None:
    with pytest.raises(MetricMismatch, match=named):
        check_labels("label", labels, "logits", 4)


@pytest.mark.parametrize(
    ("name", "value", "low", "classes", "said"),
    [
        ("top1", 0.9, 0.85, 10, False),
        ("top1", 0.0, 0.0, 10, True),
        ("top1", 0.11, 0.09, 10, True),
        ("accuracy", 0.55, 0.45, 2, True),
        ("top5", 0.6, 0.5, 10, True),
        ("top5", 0.6, 0.55, 10, False),
        ("top5", 1.0, 1.0, 5, True),
        ("accuracy", 0.01, 0.005, None, False),
        ("accuracy", 0.0, 0.0, None, True),
    ],
    ids=[
        "skill",
        "nothing-right",
        "chance",
        "chance-of-two",
        "chance-of-five",
        "skill-of-five",
        "five-of-five",
        "class-numbers",
        "no-class-number-right",
    ],
)
def test_a_metric_that_guessing_reaches_is_said(
    name: str, value: float, low: float, classes: int | None, said: bool
) -> None:
    original = Quality(name=name, output="logits", labels="label", value=value, low=low, high=1.0, sample_count=100)
    warning = guessing(original, classes)
    assert (warning is not None) == said
    if warning is not None:
        assert [part for part in (name, "'label'", "'logits'", "guessing") if part not in warning] == []


@pytest.mark.parametrize("form", ["column", "booleans", "column of floats"])
def test_classes_are_scored_the_same_in_every_form(form: str) -> None:
    flat = np.arange(20) % 2
    labels = {"column": flat[:, None], "booleans": flat == 1, "column of floats": flat[:, None].astype(np.float32)}
    original, candidate = (np.random.default_rng(seed).standard_normal((20, 7)).astype(np.float32) for seed in (0, 1))
    found = []
    for one in (flat, labels[form]):
        scores = Scores(Metric.model_validate({"name": "top5", "output": "y", "labels": "label"}), {"label": one})
        scores.add("y", original, candidate, np.arange(20))
        assert scores.classes == 7
        found.append(scores.labelled["label|candidate"])
    assert found[0].keys() == found[1].keys() >= {"top1", "top5", "owners"}
    for name, columns in found[0].items():
        np.testing.assert_array_equal(columns[0], found[1][name][0])
