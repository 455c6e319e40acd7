"""What is refused when a job is submitted, because it is known then that it cannot be carried out."""

import pytest

from app.config import Settings
from app.errors import DataMismatch
from app.jobs.fitness import BudgetTooLarge
from tests.app.jobs.refusals import GRAPH, IMAGES, LABELS, STATIC, Refusal, check

REFUSALS = [
    Refusal("no-array-for-an-input", DataMismatch, "`image`", arrays={"evaluation": [LABELS]}),
    Refusal(
        "two-arrays-no-input-bears",
        DataMismatch,
        "`other`, `another`",
        arrays={"calibration": [IMAGES, LABELS | {"name": "other"}, LABELS | {"name": "another"}]},
    ),
    Refusal(
        "a-stranger-beside-named-labels",
        DataMismatch,
        "other",
        arrays={"evaluation": [IMAGES, LABELS, LABELS | {"name": "other"}]},
        body={"metric": {"name": "top1", "labels": "label"}},
    ),
    Refusal(
        "wrong-rank",
        DataMismatch,
        "float32 [100, 64]",
        arrays={"evaluation": [IMAGES | {"shape": [100, 64]}]},
    ),
    Refusal("wrong-width", DataMismatch, "[100, 1, 9, 9]", arrays={"evaluation": [IMAGES | {"shape": [100, 1, 9, 9]}]}),
    Refusal("no-such-input-in-shapes", DataMismatch, "`x`", body={"target": {"shapes": {"x": [1]}}}),
    Refusal(
        "shape-that-does-not-fit", DataMismatch, "[1, 1, 9, 8]", body={"target": {"shapes": {"image": [1, 1, 9, 8]}}}
    ),
    Refusal("budget-too-large", BudgetTooLarge, "1000000", body={"budget_seconds": 1_000_000}),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_what_cannot_be_carried_out_is_refused_by_name(case: Refusal, settings: Settings) -> None:
    case.happens(settings)


def test_every_default_is_filled_in(settings: Settings) -> None:
    request = check(settings, {"recipe": STATIC}, {"calibration": [IMAGES]})
    assert request.budget_seconds == settings.jobs.default_budget_seconds
    dumped = request.model_dump(mode="json", by_alias=True)["recipe"][0]
    assert dumped["pass"] == "quantize_static"
    assert dumped["per_channel"] == "auto" and dumped["calibration_samples"] == 256


def test_of_many_names_the_first_are_told_and_the_number_of_the_rest(settings: Settings) -> None:
    many = [IMAGES | {"name": f"array_{one}"} for one in range(1000)]
    with pytest.raises(DataMismatch) as refused:
        check(settings, {"recipe": GRAPH}, {"calibration": many})
    assert "`array_19` and 980 more" in refused.value.detail
    assert "array_20`" not in refused.value.detail
