"""When a contract is met beyond the samples at hand."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from worker.engine.evaluation.acceptance import COUNTING, decide, is_within, least_samples, likely_drop
from worker.engine.evaluation.bootstrap import Drop, Mean, estimate, skewness_of
from worker.engine.evaluation.requests import ComparisonAnswer


def compared(before: np.ndarray, after: np.ndarray, confidence: float = 0.95, metric: str = "top1") -> ComparisonAnswer:
    """As the probe answers for scores `(N,)` of both files."""
    lost = Drop(metric, Mean(before), Mean(after))
    (drop,) = estimate([lost], len(before), seed=0, confidence=confidence)
    skewness = None if metric in COUNTING else skewness_of(lost, len(before))
    figures: dict[str, Any] = {"original": [], "candidate": [], "metric_original": None, "metric_candidate": None}
    return ComparisonAnswer(
        **figures,
        drop=drop.value,
        drop_low=drop.low,
        drop_high=drop.high,
        drop_above=drop.bound(1 - confidence, skewness),
        drop_below=drop.bound(confidence, skewness),
        sample_count=len(before),
        scored_samples=int(np.sum(~np.isnan(after))),
        changed_samples=int(np.sum(before != after)),
        warnings=[],
    )


def scores(count: int, lost: int, gained: int = 0) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.ones(count), np.ones(count)
    after[:lost] = 0
    before[lost : lost + gained] = 0
    return before, after


@dataclass
class Case:
    id: str
    count: int
    lost: int
    outcome: str
    gained: int = 0


CASES = [
    Case("none of 1,000 lost", 1000, 0, "met"),
    # None in n leaves 3 / n possible: 0.03 here.
    Case("none of 100 lost", 100, 0, "undecidable"),
    Case("one alone", 1, 0, "undecidable"),
    Case("5 in 1,000 lost", 1000, 5, "undecidable"),
    Case("3 in 1,000 lost", 1000, 3, "met"),
    Case("as many gained as lost", 2000, 10, "met", gained=10),
    Case("5 in 100 lost", 100, 5, "unmet"),
    Case("all lost", 50, 50, "unmet"),
]


@cache
def is_met(count: int, lost: int) -> bool:
    """Whether a drop of a hundredth is accepted where so many samples of a thing that was right before are lost."""
    return decide(compared(*scores(count, lost)), "top1", 0.01, 0.95).outcome == "met"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_drop_of_a_hundredth_is_decided_where_the_samples_suffice(case: Case) -> None:
    before, after = scores(case.count, case.lost, case.gained)
    assert decide(compared(before, after), "top1", 0.01, 0.95).outcome == case.outcome


@pytest.mark.parametrize(
    ("count", "lost", "gained"),
    [
        pytest.param(100, 0, 0, id="none lost"),
        pytest.param(1000, 6, 0, id="some lost"),
        pytest.param(667, 14, 14, id="as many gained as lost"),
        pytest.param(1000, 30, 29, id="one more lost than gained"),
    ],
)
def test_the_samples_that_it_names_would_have_decided_it(count: int, lost: int, gained: int) -> None:
    decision = decide(compared(*scores(count, lost, gained)), "top1", 0.01, 0.95)
    assert decision.outcome == "undecidable"
    assert decision.samples_needed is not None
    # What the bootstrap says beside is drawn, and samples are whole: a seventh more is on the safe side.
    times = 1.15 * decision.samples_needed / count
    more = scores(round(count * times), round(lost * times), round(gained * times))
    assert decide(compared(*more), "top1", 0.01, 0.95).outcome == "met"


@pytest.mark.parametrize("count", [1, 50, 298])
def test_of_samples_none_of_which_is_lost_it_names_as_many_as_suffice(count: int) -> None:
    decision = decide(compared(*scores(count, 0)), "top1", 0.01, 0.95)
    assert (decision.outcome, decision.samples_needed) == ("undecidable", 299)


@pytest.mark.parametrize("count", [299, 667, 1000])
def test_what_is_likely_to_be_accepted_is_known_before_anything_is_measured(count: int) -> None:
    likely, random = likely_drop("top1", 0.01, 0.95, count), np.random.default_rng(0)

    def accepted(drop: float) -> float:
        return float(np.mean([is_met(count, int(lost)) for lost in random.binomial(count, drop, 60)]))

    # Of 60 draws a share differs from the true one by 0.065 as a rule.
    assert accepted(0.8 * likely) > 0.5
    assert accepted(1.5 * likely) < 0.5


@pytest.mark.parametrize(
    ("metric", "count"), [("top1", 298), ("sqnr_db", 1000)], ids=["too few samples to show any", "no count of samples"]
)
def test_where_no_such_drop_is_known_all_that_is_allowed_will_do(metric: str, count: int) -> None:
    assert likely_drop(metric, 0.01, 0.95, count) == 0.01


@pytest.mark.parametrize(
    ("count", "lost", "allowed", "outcome"),
    [
        pytest.param(1, 1, 0.2, "undecidable", id="one of one"),
        # Of files that lose 3 in 10, 1 in 11 loses both of two.
        pytest.param(2, 2, 0.3, "undecidable", id="two of two"),
        pytest.param(5, 5, 0.3, "unmet", id="five of five"),
    ],
)
def test_of_few_samples_all_of_which_are_lost_no_more_is_shown_than_chance_leaves(
    count: int, lost: int, allowed: float, outcome: str
) -> None:
    decision = decide(compared(*scores(count, lost)), "top1", allowed, 0.95)
    assert decision.outcome == outcome
    # A file that loses this share loses all of them one time in twenty.
    assert decision.above == pytest.approx(0.05 ** (1 / count))
    if decision.samples_needed is not None:
        more = compared(*scores(decision.samples_needed, decision.samples_needed))
        assert decide(more, "top1", allowed, 0.95).outcome == "unmet"


def test_where_answers_changed_both_ways_the_drop_is_as_uncertain_as_both_make_it() -> None:
    both_ways = compared(*scores(100, 40, gained=10))
    decision, one_way = (decide(one, "top1", 0.01, 0.95) for one in (both_ways, compared(*scores(100, 30))))
    assert decision.above is not None and one_way.above is not None
    assert decision.above == both_ways.drop_above
    assert decision.above < one_way.above


def test_a_higher_confidence_needs_more_samples() -> None:
    assert least_samples("top1", 0.01, 0.95) == 299
    assert least_samples("top1", 0.01, 0.99) == 459
    before, after = scores(350, 0)
    assert decide(compared(before, after, 0.95), "top1", 0.01, 0.95).outcome == "met"
    assert decide(compared(before, after, 0.99), "top1", 0.01, 0.99).outcome == "undecidable"


def test_a_contract_of_a_hundredth_is_broken_as_seldom_as_it_says() -> None:
    """Files that truly lose 1.2 % of the metric are accepted in at most 5 % of draws, give or take what 150 show."""
    drawn = np.random.default_rng(0).binomial(600, 0.012, 150)
    assert sum(is_met(600, int(lost)) for lost in drawn) / 150 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


def test_what_is_no_number_keeps_no_contract() -> None:
    answer = compared(*scores(10, 0)).model_copy(update={"drop": None, "drop_below": None})
    assert decide(answer, "mse", 0.01, 0.95).outcome == "unmet"


@pytest.mark.parametrize(
    ("decibels", "outcome"), [pytest.param(92, "unmet", id="58 dB below"), pytest.param(150, "met", id="just as much")]
)
def test_a_floor_is_held_however_little_noise_it_allows(decibels: float, outcome: str) -> None:
    allowed = 10.0 ** (-150 / 10)
    kept = np.full(100, float(decibels))
    answer = compared(kept, kept, metric="sqnr_db")
    assert answer.drop is not None
    assert decide(answer, "sqnr_db", allowed, 0.95).outcome == outcome
    assert is_within(answer.drop, "sqnr_db", allowed) == (outcome == "met")


def test_samples_without_a_label_show_nothing() -> None:
    before, after = scores(1000, 0)
    before[20:] = after[20:] = np.nan
    # None of 20 leaves 3 / 20 possible.
    assert decide(compared(before, after), "top1", 0.01, 0.95).outcome == "undecidable"
    assert decide(compared(before, after), "top1", 0.2, 0.95).outcome == "met"


@pytest.mark.parametrize(("confidence", "least"), [(0.8, 8), (0.95, 59), (0.99, 459)])
def test_what_no_samples_are_counted_of_is_met_from_as_many_on_as_show_a_rare_kind(
    confidence: float, least: int
) -> None:
    for count, outcome in ((least - 1, "undecidable"), (least, "met")):
        same = np.ones(count)
        decision = decide(compared(same, same, confidence, "mse"), "mse", 0.01, confidence)
        assert decision.outcome == outcome
        if outcome == "undecidable":
            assert decision.samples_needed == least


def test_what_is_ruined_is_unmet_on_fewer() -> None:
    before = np.linspace(1, 2, 10)
    assert decide(compared(before, 2 * before, metric="mse"), "mse", 0.01, 0.95).outcome == "unmet"


@pytest.mark.parametrize(("growth", "least"), [(0.0, 59), (0.5, 8)])
def test_of_too_few_to_draw_from_it_names_the_fewest_that_could_decide(growth: float, least: int) -> None:
    before = np.linspace(1, 2, 3)
    decision = decide(compared(before, (1 + growth) * before, metric="mse"), "mse", 0.01, 0.95)
    assert (decision.outcome, decision.samples_needed, decision.at_least) == ("undecidable", least, True)


def test_an_error_that_one_sample_in_25_carries_is_accepted_as_seldom_as_it_says() -> None:
    """It truly grows by 4 %, just what is allowed; by percentiles alone 9 in 100 of these draws are accepted."""
    random, accepted, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        before = random.exponential(1.0, 100)
        after = before + (random.random(100) < 0.04)
        accepted += decide(compared(before, after, metric="mse"), "mse", 0.04, 0.95).outcome == "met"
    assert accepted / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_samples_that_chose_a_file_accept_none() -> None:
    same, worse = compared(*scores(1000, 0)), compared(*scores(1000, 50))
    decision = decide(same, "top1", 0.01, 0.95, held_out=False)
    assert (decision.outcome, decision.samples_needed) == ("undecidable", None)
    assert decide(worse, "top1", 0.01, 0.95, held_out=False).outcome == "unmet"
