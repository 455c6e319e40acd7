"""Which array holds the labels of which output."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from app.recipes.training import FineTune
from tests.worker.networks import normal
from worker.engine.training.targets import LabelsMismatch, check_kinds, choose_targets

CLASSES = np.arange(6) % 3
OUTPUTS = {"logits": normal(2, 3), "box": normal(2, 4), "map": normal(2, 5, 8, 8), "count": np.zeros((2, 1), np.int64)}


def _options(**arguments: Any) -> FineTune:
    return FineTune.model_validate({"pass": "fine_tune", **arguments})


@dataclass
class Choice:
    id: str
    labels: dict[str, np.ndarray]
    expected: dict[str, tuple[str, int | None]]
    arguments: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=lambda: OUTPUTS)


CHOICES = [
    Choice("the-only-classes", {"label": CLASSES}, {"logits": ("label", 1)}),
    Choice("a-class-for-every-pixel", {"label": np.zeros((6, 8, 8), int)}, {"map": ("label", 1)}),
    Choice("by-name", {"box": normal(6, 4), "logits": CLASSES}, {"box": ("box", None), "logits": ("logits", 1)}),
    Choice("the-only-numbers", {"where": normal(6, 4)}, {"box": ("where", None)}),
    Choice(
        "as-asked",
        {"a": CLASSES, "b": normal(6, 4)},
        {"logits": ("a", 1), "box": ("b", None)},
        {"labels": {"logits": "a", "box": "b"}},
    ),
    Choice(
        "numbers-though-whole",
        {"label": np.arange(24).reshape(6, 4)},
        {"box": ("label", None)},
        {"kinds": {"box": "numbers"}},
    ),
    Choice("classes-beside-something-else", {"label": CLASSES, "weight": normal(6)}, {"logits": ("label", 1)}),
    Choice("classes-in-a-column", {"label": CLASSES[:, None]}, {"logits": ("label", 1)}),
    Choice("a-class-for-every-pixel-of-one-channel", {"label": np.zeros((6, 1, 8, 8), int)}, {"map": ("label", 1)}),
    Choice("classes-in-floats", {"label": CLASSES.astype(np.float32)}, {"logits": ("label", 1)}),
    Choice("classes-in-booleans", {"label": CLASSES == 1}, {"logits": ("label", 1)}),
    Choice("floats-that-are-no-classes", {"label": CLASSES * 1.5}, {}),
    Choice("floats-beyond-all-classes", {"label": CLASSES * 4.0}, {}),
    Choice(
        "a-column-for-an-output-of-one-number",
        {"label": CLASSES[:, None] % 2},
        {"score": ("label", None)},
        outputs={"embedding": normal(2, 128), "score": normal(2, 1)},
    ),
    Choice(
        "a-column-that-could-be-either-beside-something-else",
        {"label": CLASSES[:, None] % 2, "weight": normal(6)},
        {},
        outputs={"embedding": normal(2, 128), "score": normal(2, 1)},
    ),
    Choice("nothing-fits", {"label": normal(6, 7)}, {}),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: case.id)
def test_labels_find_their_output(case: Choice) -> None:
    found = choose_targets(case.labels, case.outputs, _options(**case.arguments))
    assert {target.output: (target.array, target.axis) for target in found} == case.expected


@pytest.mark.parametrize("column", [False, True], ids=["flat", "column"])
def test_classes_in_floats_are_not_known_where_they_are_nan(column: bool) -> None:
    """As tables with missing values have them."""
    labels = np.where(CLASSES == 2, np.nan, CLASSES)
    (target,) = choose_targets({"label": labels[:, None] if column else labels}, OUTPUTS, _options())
    assert target.rows(np.arange(6)).tolist() == [0, 1, -1, 0, 1, -1]


SEVERAL = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1]])


@dataclass
class Answers:
    """`expected`: the axis of classes, whether labels are yes or no, and whether the output holds probabilities."""

    id: str
    labels: np.ndarray
    shape: tuple[int, ...]
    expected: tuple[int | None, bool, bool]
    squashed: str | None = None
    kind: str | None = None


ANSWERS = [
    Answers("one-logit", CLASSES % 2, (2, 1), (None, True, False)),
    Answers("a-logit-without-an-axis", CLASSES % 2, (2,), (None, True, False)),
    Answers("several-labels", SEVERAL, (2, 3), (None, True, False)),
    Answers("booleans", SEVERAL.astype(bool), (2, 3), (None, True, False)),
    Answers("behind-a-sigmoid", SEVERAL, (2, 3), (None, True, True), "Sigmoid"),
    Answers("one-hot", np.eye(3, dtype=int)[CLASSES], (2, 3), (1, False, False)),
    Answers("one-hot-behind-a-softmax", np.eye(3, dtype=int)[CLASSES], (2, 3), (1, False, False), "Softmax"),
    Answers("one-hot-behind-a-sigmoid", np.eye(3, dtype=int)[CLASSES], (2, 3), (None, True, True), "Sigmoid"),
    Answers("a-mask", np.zeros((6, 8, 8), int), (2, 1, 8, 8), (None, True, False)),
    Answers("floats", SEVERAL.astype(np.float32), (2, 3), (None, False, False)),
    Answers("said-to-be-numbers", SEVERAL, (2, 3), (None, False, False), kind="numbers"),
    Answers("counts", SEVERAL * 2, (2, 3), (None, False, False)),
]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case.id)
def test_yes_and_no_are_told_from_numbers(case: Answers) -> None:
    options = _options(**({"kinds": {"y": case.kind}} if case.kind else {}))
    squashed = {"y": case.squashed} if case.squashed else {}
    (target,) = choose_targets({"label": case.labels}, {"y": normal(*case.shape)}, options, squashed)
    assert (target.axis, target.binary, target.probabilities) == case.expected
    if target.axis is not None:
        assert target.rows(np.arange(6)).tolist() == CLASSES.tolist()


def test_marks_of_classes_stay_where_they_are() -> None:
    """A mapped file of maps of classes is larger than memory."""
    labels = np.moveaxis(np.eye(3, dtype=np.uint8)[np.arange(6 * 16).reshape(6, 4, 4) % 3], -1, 1).copy()
    (target,) = choose_targets({"label": labels}, {"y": normal(2, 3, 4, 4)}, _options())
    assert np.shares_memory(target.values, labels)
    assert target.rows(np.array([4, 1])).tolist() == labels[[4, 1]].argmax(axis=1).tolist()


def test_kinds_are_those_of_outputs() -> None:
    check_kinds(OUTPUTS, _options(kinds={"box": "numbers"}))
    with pytest.raises(LabelsMismatch, match="'scores'; outputs of floats"):
        check_kinds(OUTPUTS, _options(kinds={"scores": "numbers"}))


@dataclass
class Refusal:
    id: str
    labels: dict[str, np.ndarray]
    asked: dict[str, str]
    words: str


REFUSALS = [
    Refusal("no-such-output", {"a": CLASSES}, {"scores": "a"}, "'scores'; outputs of floats"),
    Refusal("an-output-of-integers", {"a": CLASSES}, {"count": "a"}, "'count'; outputs of floats"),
    Refusal("no-such-array", {"a": CLASSES}, {"logits": "b"}, "'b'; beside the model's inputs the training data has a"),
    Refusal("one-class-too-many", {"a": CLASSES + 1}, {"logits": "a"}, "go from 1 to 3; the output 'logits' scores 3"),
    Refusal("no-label-at-all", {"a": CLASSES * 0 - 1}, {"logits": "a"}, "go from -1 to -1"),
    Refusal("no-whole-numbers", {"a": CLASSES + 0.5}, {"logits": "a"}, "neither numbers of its classes nor values"),
    Refusal("no-such-class-in-floats", {"a": CLASSES + 1.0}, {"logits": "a"}, "go from 1 to 3; the output"),
    Refusal("another-size", {"a": normal(6, 5)}, {"box": "a"}, "neither numbers of its classes nor values of it"),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_labels_that_do_not_fit_are_refused(case: Refusal) -> None:
    with pytest.raises(LabelsMismatch, match=case.words) as caught:
        choose_targets(case.labels, OUTPUTS, _options(labels=case.asked))
    assert caught.value.remedy


def test_numbers_are_weighed_by_how_much_they_vary() -> None:
    values = np.array([[0.0], [4.0], [np.nan]], np.float32)
    (target,) = choose_targets({"y": values}, {"y": normal(2, 1)}, _options())
    assert target.variance == pytest.approx(4.0)
    (alike,) = choose_targets({"y": np.full((5, 1), 1000.0)}, {"y": normal(2, 1)}, _options())
    assert alike.variance == 1.0
