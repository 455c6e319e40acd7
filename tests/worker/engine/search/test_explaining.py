"""What a search says of itself."""

from dataclasses import replace

import pytest

from app.recipes.auto import ObjectiveWeights
from tests.worker.engine.search.grounds import LATENCY, SIZE, trial
from worker.engine.search.explaining import figures, verdict_on, why
from worker.engine.search.proposals import Ratios, Trial


def test_the_original_is_delivered_for_what_was_so() -> None:
    none = [trial("slower", latency=0.9), trial("broken", latency=3.0, drop=0.5)]
    (words,) = why(None, none, LATENCY, 0.01)
    assert words == (
        "No candidate keeps the contract (a drop of at most 0.01) and gains by latency, of 2 that were tried: "
        "the original is delivered."
    )
    # What kept it while candidates were chosen, and was not accepted, did not break it.
    (words,) = why(None, [*none, trial("promising", latency=2.0)], LATENCY, 0.01)
    assert words.startswith("1 of 3 candidates, `promising` the best of them, keep the contract")
    assert words.endswith("none that gained was accepted: the original is delivered.")


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        pytest.param(0.5, "loses 0.5 of the metric where 0.01 is allowed", id="too much"),
        pytest.param(None, "differs from the original by what is no number", id="no number"),
    ],
)
def test_what_gains_more_and_breaks_the_contract_is_told(drop: float | None, said: str) -> None:
    winner, broken = trial("int8, static", 2.0), replace(trial("float16", 3.0, drop=0.5), drop=drop)
    assert f"`float16` would gain more (3 times as fast), and {said}." in why(winner, [winner, broken], LATENCY, 0.01)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        pytest.param(LATENCY, "weights in 4 bits 1.1 times as fast", id="latency"),
        pytest.param(SIZE, "weights in 4 bits 6.5 times as small", id="size"),
    ],
)
def test_methods_are_told_by_what_counts(weights: ObjectiveWeights, said: str) -> None:
    winner = trial("int8, static", 2.0, 4.0)
    words = why(winner, [winner, trial("weights in 4 bits", 1.1, 6.5, family="weights")], weights, 0.01)
    assert f"Beside it: {said}." in words


MEMORY = ObjectiveWeights(memory=1.0)


def remembering(name: str, memory: float) -> Trial:
    """As fast and as large as the original, and with so many times as little memory."""
    return replace(trial(name), ratios=Ratios(memory=memory))


def test_memory_is_told_where_it_counts() -> None:
    one = remembering("float16", 1.5)
    words = "1 times as fast, 1 times as small, {}a drop of 0 on the samples for choosing"
    assert figures(one, MEMORY) == words.format("1.5 times as little memory, ")
    assert figures(one, LATENCY) == words.format("")


def test_memory_is_why_one_is_beaten_and_another_is_not() -> None:
    winner, loser = remembering("weights in 8 bits", 3.0), remembering("float16", 1.5)
    said = verdict_on(loser, winner, 0.01, MEMORY, of_front=False, again=False, of_last_front=False)
    assert said.endswith(": beaten; `weights in 8 bits` has 0.5 of its memory.")
    said = verdict_on(loser, winner, 0.01, MEMORY, of_front=True, again=True, of_last_front=True)
    assert said.endswith(": nothing is better in speed, size, memory and quality at once.")
