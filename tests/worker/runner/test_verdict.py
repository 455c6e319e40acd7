"""What a verdict says of its figures, and at a confidence where samples decide nothing."""

import uuid
from typing import Any

import pytest

from app.jobs.report import Quality, Verdict
from app.recipes.request import Metric, OptimizeRequest
from worker.engine.evaluation.requests import ComparisonAnswer, Influence
from worker.engine.feeds import Feeds
from worker.runner.job_data import JobData
from worker.runner.verdict import judge


def figures_in_words(metric: Metric, **figures: Any) -> str:
    """What is said without a contract, of 1,000 samples that all count, and no drop, but for these figures."""
    answer: dict[str, Any] = {
        "original": [],
        "candidate": [],
        "sample_count": 1000,
        "scored_samples": 1000,
        "changed_samples": 0,
        "warnings": [],
        "metric_original": 0.5,
        "metric_candidate": 0.5,
        "drop": 0.0,
        "drop_low": None,
        "drop_high": None,
    }
    request = OptimizeRequest.model_validate({"model_id": uuid.uuid4(), "recipe": [{"pass": "optimize_graph"}]})
    feeds = Feeds({}, {}, frozenset(), 1)
    data = JobData(feeds, feeds, feeds, batch=1, labels={}, words={})
    return judge(request, metric, ComparisonAnswer.model_validate(answer | figures), data, []).reason


@pytest.mark.parametrize(
    ("drop", "candidate", "words"),
    [
        pytest.param(0.0, None, "is exact over 1,000 samples", id="no noise"),
        pytest.param(None, None, "is not finite over 1,000 samples", id="no number"),
        pytest.param(0.01, 20.0, "is 20 dB over 1,000 samples", id="some noise"),
    ],
)
def test_answers_without_noise_are_exact(drop: float | None, candidate: float | None, words: str) -> None:
    said = figures_in_words(Metric(name="sqnr_db", output="y"), drop=drop, metric_candidate=candidate)
    assert words in said


@pytest.mark.parametrize(
    ("scored", "words"), [(1000, "over 1,000 samples"), (20, "over 20 scored of 1,000 samples")], ids=["all", "few"]
)
def test_samples_without_a_label_are_not_counted(scored: int, words: str) -> None:
    said = figures_in_words(Metric(name="top1", output="y", labels="label"), scored_samples=scored)
    assert words in said


def judged(
    samples: int,
    *,
    held_out: bool = True,
    recipe: Any = "auto",
    name: Any = "mse",
    max_drop: float = 0.01,
    kept: dict[str, dict[str, float | None]] | None = None,
    confidence: float | None = 0.95,
    influence: Influence | None = None,
) -> Verdict:
    """Of a candidate that is exactly as its original; or of other outputs keeps so much, by output and metric."""
    figures: dict[str, Any] = dict.fromkeys(("drop", "drop_low", "drop_high", "drop_above", "drop_below"), 0.0)
    compared = ComparisonAnswer(
        original=[],
        candidate=[
            Quality(name=metric, output=output, value=value, sample_count=samples)
            for output, values in (kept or {}).items()
            for metric, value in values.items()
        ],
        metric_original=0.5,
        metric_candidate=0.5,
        sample_count=samples,
        scored_samples=samples,
        changed_samples=0,
        warnings=[],
        influence=influence,
        **figures,
    )
    request = OptimizeRequest.model_validate(
        {"model_id": uuid.uuid4(), "recipe": recipe, "contract": {"max_drop": max_drop, "confidence": confidence}}
    )
    feeds, words = Feeds({}, {}, frozenset(), 1), {"evaluation": f"dataset 'a': {samples} samples"}
    data = JobData(feeds, feeds, feeds, batch=1, labels={}, words=words, held_out=held_out)
    return judge(request, Metric(name=name, output="y", labels="label"), compared, data, [])


FEW = "At 0.95 confidence so few samples show nothing: at least 59 samples to accept by would."


@pytest.mark.parametrize(
    ("samples", "held_out", "outcome", "words"),
    [
        pytest.param(100, True, "met", "within the 0.01 allowed", id="enough"),
        pytest.param(30, True, "undecidable", FEW, id="few"),
        pytest.param(3, True, "undecidable", FEW, id="next to none"),
        pytest.param(100, False, "undecidable", "The file was chosen by the same ones", id="none held out"),
    ],
)
def test_what_is_missing_is_said(samples: int, outcome: str, words: str, *, held_out: bool) -> None:
    verdict = judged(samples, held_out=held_out)
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_samples_that_a_pass_of_a_recipe_read_decide_nothing() -> None:
    verdict = judged(100, held_out=False, recipe=[{"pass": "quantize_static"}])
    assert verdict.outcome == "undecidable"
    assert "Passes of the recipe read the same ones" in verdict.reason and "`data.evaluation`" in verdict.reason


@pytest.mark.parametrize("recipe", ["auto", [{"pass": "quantize_static"}]], ids=["auto", "recipe"])
@pytest.mark.parametrize(
    ("name", "provable"), [pytest.param("top1", False, id="counting"), pytest.param("mse", True, id="exact")]
)
def test_samples_are_asked_for_only_where_they_could_show_that_nothing_is_lost(
    name: str, recipe: Any, *, provable: bool
) -> None:
    """Of samples that are counted the next may be a lost one; of an error that is the same in each, none."""
    assert (judged(1000, recipe=recipe, name=name, max_drop=0).outcome == "met") == provable
    reason = judged(1000, held_out=False, recipe=recipe, name=name, max_drop=0).reason
    assert ("no number of samples shows" in reason) != provable
    assert ("the same ones" in reason) == provable


@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [
        pytest.param("agreement", {"agreement": 0.4, "sqnr_db": 1.0}, "'z' (agreement 0.4)", id="lost"),
        pytest.param("agreement", {"agreement": 0.99, "sqnr_db": 1.0}, None, id="within"),
        pytest.param("sqnr_db", {"agreement": 0.4, "sqnr_db": 12.0}, "'z' (sqnr_db 12)", id="noise"),
        pytest.param("sqnr_db", {"agreement": 1.0, "sqnr_db": None}, None, id="without-noise"),
        pytest.param("sqnr_db", {"agreement": 0.0, "sqnr_db": None}, "'z' (agreement 0)", id="no-longer-silent"),
        pytest.param("sqnr_db", {"agreement": 0.0}, "'z' (agreement 0)", id="broken"),
        pytest.param("top1", {"agreement": 0.96, "sqnr_db": 9.0}, "'z' (agreement 0.96)", id="beside-labels"),
        pytest.param("top1", {"agreement": 0.98, "sqnr_db": 9.0}, None, id="three-changes-a-drop"),
    ],
)
def test_outputs_beside_the_contracts_that_changed_are_named(
    name: str, kept: dict[str, float | None], said: str | None
) -> None:
    verdict = judged(1000, name=name, kept={"y": {"agreement": 0.0, "sqnr_db": 0.0}, "z": kept})
    assert verdict.outcome == "met"
    assert (verdict.causes == []) == (said is None)
    assert said is None or (f": {said}. Name one" in verdict.causes[0] and "of 'y' alone" in verdict.causes[0])


# Two classes, one of them 1 % of the samples.
RARE = Influence(most=1 / 16, rarest_class=1, rarest_samples=4)


def test_of_f1_the_rarest_class_is_named_and_as_many_samples_as_it_asks_for() -> None:
    verdict = judged(400, name="f1", influence=RARE)
    assert verdict.outcome == "undecidable"
    assert "about 7,500 samples to accept by would. " in verdict.reason
    assert "The rarest is 1: the original is right about it in 4 of these samples." in verdict.reason
    assert "The rarest is" not in judged(400, name="f1", influence=RARE, held_out=False).reason


def test_without_a_confidence_it_is_said_what_of_a_rare_class_may_be_lost_unseen() -> None:
    verdict = judged(400, recipe=[{"pass": "optimize_graph"}], name="f1", confidence=None, influence=RARE)
    assert verdict.outcome == "met"
    assert "Nothing was lost, which for 400 samples still allows a true drop of up to 0.1875." in verdict.reason
