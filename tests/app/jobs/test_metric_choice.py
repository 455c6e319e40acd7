"""Which metric judges a job, and what is refused because of it."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from app.config import Settings
from app.errors import DataRequired, MetricMismatch
from tests.app.jobs.refusals import GRAPH, IMAGES, LABELS, MODEL, Refusal, check

TEXT = {"name": "name", "dtype": "string", "shape": ["N"]}
CLASS = {"name": "class", "dtype": "int64", "shape": ["N"]}
SHARES = {"name": "share", "dtype": "seq(map(string,float32))", "shape": None}
SCORES = {"name": "score", "dtype": "float32", "shape": ["N", 3]}

REFUSALS = [
    Refusal("labels-without-data", DataRequired, "`top1`", body={"metric": {"name": "top1"}}),
    Refusal(
        "no-labels-at-all",
        MetricMismatch,
        "has none",
        arrays={"evaluation": [IMAGES]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "misspelt-labels",
        MetricMismatch,
        "no array `labl`; besides the model's inputs it has `label`",
        arrays={"calibration": [IMAGES, LABELS], "evaluation": [IMAGES, LABELS]},
        body={"metric": {"name": "top1", "labels": "labl"}},
    ),
    Refusal(
        "two-label-arrays",
        MetricMismatch,
        "`label`, `other`",
        arrays={"evaluation": [IMAGES, LABELS, LABELS | {"name": "other"}]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "one-hot-labels",
        MetricMismatch,
        "is [100, 10]; for the output `logits` ['N', 10] and this data `top1` wants [100]",
        arrays={"evaluation": [IMAGES, LABELS | {"shape": [100, 10]}]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "flat-labels-for-whole-feeds",
        MetricMismatch,
        "`top1` wants [100, 'N']",
        arrays={"evaluation": [IMAGES | {"shape": [100, 1, 1, 8, 8]}, LABELS]},
    ),
    Refusal(
        "numbers-of-another-size",
        MetricMismatch,
        "`mse` wants [100, 10]",
        arrays={"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        body={"metric": {"name": "mse"}},
    ),
    Refusal("no-such-output", MetricMismatch, "`scores`", body={"metric": {"name": "cosine", "output": "scores"}}),
    Refusal("nothing-to-compare", MetricMismatch, "`share` seq(map(", model=MODEL | {"outputs": [SHARES]}),
    Refusal(
        "a-map-where-scores-are",
        MetricMismatch,
        "`share` seq(map(",
        body={"metric": {"name": "agreement", "output": "share"}},
        model=MODEL | {"outputs": [SCORES, SHARES]},
    ),
    Refusal(
        "classes-of-text",
        MetricMismatch,
        "`top1` is of numbers, and the output `name` holds text",
        arrays={"evaluation": [IMAGES, LABELS]},
        body={"metric": {"name": "top1", "output": "name"}},
        model=MODEL | {"outputs": [TEXT, SCORES]},
    ),
    Refusal(
        "direction-of-text",
        MetricMismatch,
        "`cosine`",
        body={"metric": {"name": "cosine"}},
        model=MODEL | {"outputs": [TEXT, SHARES]},
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_a_metric_that_cannot_be_measured_is_refused_by_name(case: Refusal, settings: Settings) -> None:
    case.happens(settings)


def test_one_hot_labels_are_told_how_to_become_class_numbers(settings: Settings) -> None:
    arrays = {"evaluation": [IMAGES, LABELS | {"shape": [100, 10]}]}
    with pytest.raises(MetricMismatch) as caught:
        check(settings, {"recipe": GRAPH, "metric": {"name": "top1"}}, arrays)
    assert "label.argmax(axis=-1)" in str(caught.value.remedy)


def test_an_output_without_classes_is_said_to_have_none(settings: Settings) -> None:
    price = MODEL | {"outputs": [{"name": "price", "dtype": "float32", "shape": ["N", 1]}]}
    with pytest.raises(MetricMismatch, match=r"`price` .* holds none"):
        check(settings, {"recipe": GRAPH, "metric": {"name": "top1"}}, {"evaluation": [IMAGES, LABELS]}, price)


@dataclass
class Choice:
    id: str
    arrays: dict[str, list[dict[str, Any]]]
    metric: dict[str, Any] | None
    expected: tuple[str, str, str | None]
    outputs: list[dict[str, Any]] = field(default_factory=lambda: MODEL["outputs"])


CHOICES = [
    Choice("labels-mean-top1", {"evaluation": [IMAGES, LABELS]}, None, ("top1", "logits", "label")),
    *(
        Choice(f"{name}-mean-top1", {"evaluation": [IMAGES, LABELS | form]}, None, ("top1", "logits", "label"))
        for name, form in (
            ("labels-in-a-column", {"shape": [100, 1]}),
            ("labels-in-booleans", {"dtype": "bool"}),
            ("labels-in-a-column-of-booleans", {"dtype": "bool", "shape": [100, 1]}),
        )
    ),
    Choice(
        "a-column-may-be-a-number-of-a-row-of-unknown-size",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 1]}]},
        None,
        ("agreement", "score", None),
        [SCORES | {"shape": ["N", None]}],
    ),
    Choice(
        "a-column-is-no-class-of-an-output-of-one-number",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 1]}]},
        None,
        ("agreement", "score", None),
        [SCORES | {"shape": ["N", 1]}],
    ),
    Choice(
        "a-column-as-asked",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 1]}]},
        {"name": "top5"},
        ("top5", "logits", "label"),
    ),
    Choice("no-labels-mean-agreement", {"evaluation": [IMAGES]}, None, ("agreement", "logits", None)),
    Choice("no-data-means-agreement", {}, None, ("agreement", "logits", None)),
    Choice(
        "float-labels-are-no-classes",
        {"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        None,
        ("agreement", "logits", None),
    ),
    Choice(
        "one-row-of-labels-for-each-whole-feed",
        {"evaluation": [IMAGES | {"shape": [100, 1, 1, 8, 8]}, LABELS | {"shape": [100, 1]}]},
        {"name": "top1"},
        ("top1", "logits", "label"),
    ),
    Choice(
        "a-class-for-every-pixel",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 8, 8]}]},
        {"name": "top1"},
        ("top1", "map", "label"),
        [{"name": "map", "dtype": "float32", "shape": ["N", 3, 8, 8]}],
    ),
    Choice(
        "class-numbers",
        {"evaluation": [IMAGES, LABELS]},
        {"name": "accuracy"},
        ("accuracy", "class", "label"),
        [{"name": "class", "dtype": "int64", "shape": ["N", 1]}],
    ),
    *(
        Choice(f"class-numbers-{name}", {"evaluation": [IMAGES, LABELS]}, None, expected, [CLASS | {"shape": shape}])
        for name, shape, expected in (
            ("are-what-labels-are", ["N"], ("top1", "class", "label")),
            ("of-an-axis-without-a-name", [None], ("top1", "class", "label")),
            ("in-rows-of-one", ["N", 1], ("top1", "class", "label")),
            ("of-pixels", ["N", 8, 8], ("agreement", "class", None)),
            ("that-count-no-samples", [3], ("agreement", "class", None)),
        )
    ),
    Choice(
        "class-numbers-of-whole-feeds",
        {"evaluation": [IMAGES | {"shape": [100, 1, 1, 8, 8]}, LABELS]},
        None,
        ("agreement", "class", None),
        [CLASS],
    ),
    Choice(
        "numbers-that-are-flat",
        {"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        {"name": "mse"},
        ("mse", "price", "label"),
        [{"name": "price", "dtype": "float32", "shape": ["N", 1]}],
    ),
    Choice(
        "an-axis-that-may-be-no-batch",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 7]}]},
        {"name": "top1"},
        ("top1", "boxes", "label"),
        [{"name": "boxes", "dtype": "float32", "shape": ["boxes", 10]}],
    ),
    Choice("scores-behind-text", {}, None, ("agreement", "score", None), [TEXT, SHARES, SCORES]),
    Choice(
        "labels-for-scores-behind-text",
        {"evaluation": [IMAGES, LABELS]},
        None,
        ("top1", "score", "label"),
        [TEXT, SCORES],
    ),
    Choice("text-alone", {"evaluation": [IMAGES, LABELS]}, None, ("agreement", "name", None), [TEXT, SHARES]),
    Choice("text-by-name", {}, {"name": "agreement", "output": "name"}, ("agreement", "name", None), [SCORES, TEXT]),
    Choice(
        "the-only-labels-are-found", {"evaluation": [IMAGES, LABELS]}, {"name": "top5"}, ("top5", "logits", "label")
    ),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: case.id)
def test_the_metric_is_filled_in(case: Choice, settings: Settings) -> None:
    body: dict[str, Any] = {"recipe": GRAPH} | ({"metric": case.metric} if case.metric else {})
    metric = check(settings, body, case.arrays, MODEL | {"outputs": case.outputs}).metric
    assert metric is not None
    assert (metric.name, metric.output, metric.labels) == case.expected
