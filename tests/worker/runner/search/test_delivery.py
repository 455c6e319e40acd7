"""What a search says of each candidate, and why the winner won."""

from dataclasses import replace
from typing import Any, cast

import pytest

from app.jobs.report import Interval
from tests.worker.engine.search.grounds import LATENCY
from tests.worker.runner.search.test_accepting import BOUND, One, finalist
from worker.engine.evaluation.acceptance import Decision
from worker.engine.search.front import as_good, pareto_front
from worker.engine.search.proposals import ORIGINAL
from worker.runner.job_data import JobData
from worker.runner.search.accepting import choose_winner
from worker.runner.search.data import SearchData
from worker.runner.search.delivery import Ending, told, verdict_of
from worker.runner.search.searching import Found

NOTHING = cast("Any", None)
# 1 lost in 400: 645 would show that no more than one in a hundred is.
UNDECIDED = Decision("undecidable", below=0.0118, above=0.0, samples_needed=645)
HOW_MANY = (
    "At 0.95 confidence the drop may be as much as 0.0118, and 0.01 is allowed: these samples do not decide it. With "
    "the same answers about 645 samples to accept by would."
)


def ended(*measured: One, samples: int = 400) -> Ending:
    """A search whose finalists came out so when they were measured once more."""
    final = [finalist(one, samples) for one in measured]
    choice = choose_winner([one for one in final if one.gains(LATENCY)], LATENCY, BOUND)
    front = {one.name for one in pareto_front([one.final for one in final if not as_good(ORIGINAL, one.final)])}
    rest = [one for one in final if one is not choice.winner and one.trial.name in front]
    untouched = replace(finalist(One("original", 0.0, 0.0, "met"), samples), ratio=Interval(value=1.0))
    data = JobData(NOTHING, NOTHING, NOTHING, batch=1, labels={}, words={})
    return Ending(
        opened=NOTHING,
        data=SearchData(data, data),
        bound=BOUND,
        weights=LATENCY,
        original=NOTHING,
        turn=NOTHING,
        found=Found([one.delivered.trial for one in final], ended="It ended."),
        finalists=[choice.winner or untouched, *rest],
        measured=final,
        accepted=choice.winner is not None,
        tested=choice.tested,
        front=frozenset(front),
        warnings=[],
        seconds=1.0,
    )


def said_of(name: str, ending: Ending) -> str:
    return next(one.explanation for one in told(ending).trials if one.name == name)


def test_where_samples_alone_are_wanting_the_original_says_how_many_would_do() -> None:
    ending = ended(One("int8", 0.8, 0.0, NOTHING, 0.0025, decision=UNDECIDED))
    sentence = f"`int8` (2.23 times as fast) was not accepted for want of samples. {HOW_MANY}"
    assert verdict_of(ending.finalists[0], ending, causes=False).reason.endswith(sentence)
    assert sentence in told(ending).explanation
    assert f"On the samples for accepting it is undecidable. {HOW_MANY}" in said_of("int8", ending)


def test_what_would_gain_more_than_the_winner_says_how_many_would_do() -> None:
    ending = ended(One("weights", 0.1, 0.0, "met"), One("int8", 0.8, 0.0, NOTHING, 0.0025, decision=UNDECIDED))
    assert [line for line in told(ending).explanation if HOW_MANY in line]


@pytest.mark.parametrize(
    ("one", "samples"),
    [
        pytest.param(One("int8", 0.8, 0.0, "unmet", 0.02), 400, id="it breaks the contract"),
        pytest.param(One("int8", 0.8, 0.0, NOTHING, 0.011, decision=UNDECIDED), 400, id="more would show that it does"),
        pytest.param(One("int8", 0.8, 0.0, "undecidable"), 50, id="it is delivered"),
    ],
)
def test_samples_are_not_what_lacks(one: One, samples: int) -> None:
    assert not [line for line in told(ended(one, samples=samples)).explanation if "want of samples" in line]


def test_a_finalist_that_lost_the_last_measurement_says_to_what_it_lost() -> None:
    """It was the safer one by the samples for choosing."""
    ending = ended(One("graph", 0.1, 0.0, "met", 0.002), One("int8", 0.8, 0.001, "met", 0.002))
    words = said_of("graph", ending)
    assert "in its place" not in words
    assert words.endswith(
        "Measured once more it is 1.11 times as fast, 1 times as small, a drop of 0.002 on the samples for accepting: "
        "`int8` is as good or better in speed, size and quality."
    )


def test_a_finalist_that_turns_out_no_faster_says_that_the_original_is_as_good() -> None:
    ending = ended(One("graph", 0.01, 0.0, "met"), One("int8", 0.8, 0.001, "met", 0.002))
    assert "on the samples for accepting: the original is as good or better" in said_of("graph", ending)


def test_the_one_whose_test_failed_says_that_it_ended_them() -> None:
    ending = ended(One("a", 0.1, 0.0, "met"), One("b", 0.5, 0.001, "unmet", 0.1), One("c", 1.0, 0.002, "met"))
    assert "It failed its test, and none that risks more was tested." in said_of("b", ending)
    assert "which does not count" in said_of("c", ending)
    assert "failed its test" not in said_of("a", ending)
