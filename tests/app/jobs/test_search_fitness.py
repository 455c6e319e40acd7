"""Which searches are refused when a job is submitted, and which of those that are not train."""

from dataclasses import replace
from typing import Any

import pytest

from app.config import Settings
from app.errors import MetricMismatch
from app.jobs.routing import needs_trainer
from app.jobs.search_fitness import NothingToTry, SearchContradictory
from tests.app.jobs.refusals import GRAPH, IMAGES, LABELS, STATIC, Refusal, check

COMPILE = [{"pass": "compile"}]
TRAINING = {"training": [IMAGES, LABELS]}

REFUSALS = [
    Refusal(
        "passes-that-no-search-tries",
        NothingToTry,
        "no candidate of `fine_tune`, `compile` alone",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"passes": ["fine_tune", "compile"]}},
    ),
    Refusal(
        "passes-that-train-what-no-search-makes",
        NothingToTry,
        "`distill`",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"passes": ["distill"]}},
    ),
    Refusal(
        "training-with-passes-that-do-not",
        SearchContradictory,
        "`search.passes` allows none",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"training": True, "passes": ["quantize_static", "distill"]}},
    ),
    Refusal(
        "passes-beside-recipes-given-to-a-search",
        SearchContradictory,
        "`search.passes` could change nothing",
        body={"recipe": "auto", "search": {"given": [GRAPH], "passes": ["quantize_static"]}},
    ),
    Refusal(
        "a-number-beside-recipes-given-to-a-search",
        SearchContradictory,
        "`search.max_trials` could change nothing",
        body={"recipe": "auto", "search": {"given": [GRAPH, COMPILE], "max_trials": 1}},
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_a_search_that_contradicts_itself_is_refused_by_name(case: Refusal, settings: Settings) -> None:
    case.happens(settings)


UNREACHABLE = [
    Refusal("of-the-default", MetricMismatch, "`contract.floor` is 20, and `agreement`"),
    Refusal(
        "of-auto", MetricMismatch, "`agreement`, the metric of this job, is never above 1", body={"recipe": "auto"}
    ),
    Refusal("of-cosine", MetricMismatch, "`cosine`", body={"metric": {"name": "cosine"}, "contract": {"floor": 1.01}}),
]


@pytest.mark.parametrize("case", UNREACHABLE, ids=lambda case: case.id)
def test_a_floor_that_no_file_can_reach_is_refused(case: Refusal, settings: Settings) -> None:
    """Else 20 dB that lack their metric would be a drop of -19 that is allowed, and the original would keep it."""
    replace(case, body={"contract": {"floor": 20}} | case.body).happens(settings)


@pytest.mark.parametrize(("metric", "floor"), [("agreement", 1.0), ("cosine", 0.99), ("sqnr_db", 20.0)])
def test_a_floor_that_a_file_can_reach_is_accepted(metric: str, floor: float, settings: Settings) -> None:
    body = {"recipe": "auto", "metric": {"name": metric}, "contract": {"floor": floor}}
    assert check(settings, body, {"evaluation": [IMAGES]}).searched_contract.floor == floor


def test_a_request_that_was_settled_is_accepted_as_it_was(settings: Settings) -> None:
    """With every default filled in, as a job shows it."""
    settled = check(settings, {"recipe": "auto", "search": {"given": [GRAPH]}}, {"evaluation": [IMAGES]})
    again = settled.model_dump(mode="json", by_alias=True, exclude={"model_id", "data"})
    assert check(settings, again, {"evaluation": [IMAGES]}) == settled


@pytest.mark.parametrize(
    "arrays", [{}, {"evaluation": [IMAGES]}, TRAINING], ids=["no data", "no calibration data", "data to learn from"]
)
def test_what_a_search_found_is_accepted_with_the_data_of_the_search(
    arrays: dict[str, list[dict[str, Any]]], settings: Settings
) -> None:
    found_by = check(settings, {"recipe": "auto", "seed": 7, "search": {"max_trials": 3}}, arrays)
    again = check(settings, found_by.for_given(STATIC), arrays)
    assert [[config.pass_ for config in recipe] for recipe in again.recipes] == [["quantize_static"]]
    assert again.model_copy(update={"search": None}) == found_by.model_copy(update={"search": None})
    # By this samples are divided.
    assert again.learns == found_by.learns == (arrays is TRAINING)


@pytest.mark.parametrize(
    ("passes", "trains"),
    [
        pytest.param(None, True, id="all"),
        pytest.param(["quantize_static"], False, id="none that trains"),
        pytest.param(["quantize_static", "distill", "fine_tune"], False, id="nothing beside which it trains"),
        pytest.param(["prune_structured", "distill"], True, id="what was cut"),
        pytest.param(["quantize_static", "quantize_aware_training"], True, id="what was rounded"),
    ],
)
def test_a_search_trains_where_an_allowed_pass_does(passes: list[str] | None, trains: bool, settings: Settings) -> None:
    body = {"recipe": "auto", "search": {"passes": passes}}
    settled = check(settings, body, TRAINING)
    assert needs_trainer(settled) is settled.learns is trains
    assert not needs_trainer(check(settings, body, {"evaluation": [IMAGES]}))
