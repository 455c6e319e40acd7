"""Which of the finalists is delivered."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.jobs.report import Interval, Latency
from app.recipes.auto import ObjectiveWeights
from app.recipes.request import USUAL_CONFIDENCE, Metric
from tests.worker.engine.search.grounds import LATENCY, SIZE, trial
from worker.engine.evaluation.acceptance import Decision, decide, least_samples
from worker.engine.evaluation.requests import ComparisonAnswer
from worker.engine.model_file import ModelFile
from worker.runner.artifacts import Artifact
from worker.runner.chain import Outcome
from worker.runner.contract import OutputFile
from worker.runner.search.accepting import Bound, Delivered, Finalist, choose_winner
from worker.runner.search.data import ACCEPTING_CALLS

BOUND = Bound(Metric(name="top1", output="y", labels="label"), 0.01, 0.95)


@dataclass
class One:
    """A finalist by name: its gain, its drop on the samples for choosing, and what the others decided."""

    name: str
    gain: float
    drop: float
    outcome: Any
    accepted_drop: float = 0.0
    drop_below: float | None = None
    """What the samples for choosing show the drop to stay below."""
    decision: Decision | None = None


def finalist(one: One, samples: int) -> Finalist:
    file = OutputFile(path=f"outputs/{one.name}.onnx", kind="model", file_name=f"{one.name}.onnx", media_type="x")
    model = ModelFile(Path(f"{one.name}.onnx"))
    figures: dict[str, Any] = dict.fromkeys(("metric_original", "metric_candidate", "drop_low", "drop_high"))
    compared = ComparisonAnswer(
        original=[],
        candidate=[],
        **figures,
        drop=one.accepted_drop,
        sample_count=samples,
        scored_samples=samples,
        changed_samples=0,
        warnings=[],
    )
    return Finalist(
        delivered=Delivered(
            trial(one.name, drop=one.drop, drop_below=one.drop_below),
            Outcome(model),
            Artifact(file, model.path, model, "00"),
            [],
        ),
        subject=None,  # type: ignore[arg-type] # what a file alone measures decides nothing here
        latency=Latency(p50_ms=1, p90_ms=1, p99_ms=1, mean_ms=1, call_count=1, round_medians_ms=[1]),
        ratio=Interval(value=math.exp(one.gain)),
        calls_per_second=1.0,
        compared=compared,
        decision=one.decision or Decision(one.outcome),
    )


@dataclass
class Case:
    id: str
    finalists: list[One]
    winner: str | None
    samples: int = 1000


CASES = [
    Case("the boldest of all that hold", [One("a", 0.1, 0, "met"), One("b", 1.0, 0, "met")], "b"),
    Case(
        "the boldest before the first that fails",
        [One("a", 0.1, 0, "met"), One("b", 1.0, 0, "met"), One("c", 2.0, 0, "undecidable", 0.008)],
        "b",
    ),
    # Tried in order of risk: c comes behind b, which failed, and what c would have shown counts for nothing.
    Case(
        "none behind one that failed",
        [One("a", 0.1, 0, "met"), One("b", 1.0, 0, "unmet", 0.1), One("c", 2.0, 0, "met")],
        "a",
    ),
    Case("one that lost before comes last", [One("a", 0.1, 0.009, "unmet", 0.1), One("b", 1.0, 0, "met")], "b"),
    # One that came out better by chance changed as many answers as it has to lose.
    Case(
        "few answers changed before many",
        [
            One("a", 2.0, -0.006, "undecidable", 0.006, drop_below=0.009),
            One("b", 1.0, 0.003, "met", drop_below=0.006),
            One("c", 0.1, 0.0, "met", drop_below=0.0),
        ],
        "b",
    ),
    Case(
        "one that gains no more ends nothing",
        [One("a", 1.0, 0, "met"), One("b", 1.0, 0.009, "unmet"), One("c", 2.0, 0.009, "met")],
        "c",
    ),
    Case("nothing that holds", [One("a", 1.0, 0, "unmet", 0.1)], None),
    # 299 samples are the least that can show one in a hundred at 0.95.
    Case("too few samples to accept any", [One("a", 1.0, 0, "undecidable")], "a", samples=50),
    # It gains more, and broke the contract on the samples for choosing.
    Case(
        "too few samples, and one that broke the contract before",
        [One("a", 1.0, 0, "undecidable"), One("b", 2.0, 0.05, "undecidable")],
        "a",
        samples=50,
    ),
    Case("of two alike the one that risks less", [One("a", 1.0, 0, "met"), One("b", 1.01, 0.002, "unmet")], "a"),
    Case("enough samples, and undecided", [One("a", 1.0, 0, "undecidable")], None, samples=500),
]


@pytest.mark.parametrize(
    ("ratio", "weights", "gains"),
    [
        pytest.param(Interval(value=2.0, low=1.9, high=2.1), LATENCY, True, id="faster"),
        pytest.param(Interval(value=1.004, low=0.97, high=1.03), LATENCY, False, id="as fast"),
        pytest.param(Interval(value=0.9, low=0.88, high=0.92), LATENCY, False, id="slower"),
        pytest.param(Interval(value=0.9, low=0.88, high=0.92), SIZE, True, id="slower, and smaller as asked"),
        pytest.param(Interval(value=1.2), LATENCY, True, id="one round, of which there is no interval"),
    ],
)
def test_what_is_as_fast_as_the_original_gains_nothing(ratio: Interval, weights: ObjectiveWeights, gains: bool) -> None:
    one = finalist(One("a", 0.0, 0, "met"), 1000)
    delivered = replace(one.delivered, trial=trial("a", size=3.0))
    assert replace(one, delivered=delivered, ratio=ratio).gains(weights) is gains


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_winner_was_accepted_and_gains_most(case: Case) -> None:
    winner = choose_winner([finalist(one, case.samples) for one in case.finalists], LATENCY, BOUND).winner
    assert (winner and winner.delivered.trial.name) == case.winner


def test_of_those_behind_one_that_failed_no_test_counts() -> None:
    found = [One("a", 0.1, 0, "met"), One("b", 1.0, 0, "unmet", 0.1), One("c", 2.0, 0, "met")]
    assert choose_winner([finalist(one, 1000) for one in found], LATENCY, BOUND).tested == {"a", "b"}


def test_where_the_same_samples_chose_estimates_have_to_do() -> None:
    found = [finalist(One("a", 1.0, 0, "undecidable"), 1000), finalist(One("b", 2.0, 0, "unmet", 0.1), 1000)]
    winner = choose_winner(found, LATENCY, BOUND, held_out=False).winner
    assert winner is not None and winner.delivered.trial.name == "a"


@pytest.mark.parametrize("metric", ["cosine", "sqnr_db"])
def test_calls_that_are_made_up_to_accept_by_are_enough_for_what_counts_no_samples(metric: str) -> None:
    assert least_samples(metric, BOUND.allowed, USUAL_CONFIDENCE) <= ACCEPTING_CALLS


@pytest.mark.parametrize(("memory", "gains"), [(1.004, False), (1.5, True)], ids=["as much", "less"])
def test_memory_that_differs_as_two_looks_do_is_no_gain(memory: float, gains: bool) -> None:
    one = replace(finalist(One("a", 0.0, 0, "met"), 1000), memory=memory)
    assert one.gains(ObjectiveWeights(memory=1.0, latency=0.0)) is gains


def drawn(name: str, gain: float, drop: float, generator: np.random.Generator) -> One:
    """A file that truly loses a share `drop` of its answers, and betters none, on 333 and 667 samples."""
    chosen, accepted = (int(generator.binomial(count, drop)) / count for count in (333, 667))
    compared = finalist(One(name, gain, chosen, "met", accepted), 667).compared
    bounded = compared.model_copy(update={"drop_below": accepted, "drop_above": accepted})
    return One(name, gain, chosen, "met", accepted, decision=decide(bounded, "top1", BOUND.allowed, BOUND.confidence))


def test_a_contract_is_broken_as_seldom_as_was_promised_however_many_candidates_break_it() -> None:
    """All ten truly lose a little more than is allowed: each search that accepts any is wrong."""
    generator, searches = np.random.default_rng(0), 400
    wrong = 0
    for _ in range(searches):
        found = [drawn(f"{number}", 0.2 * number, 1.01 * BOUND.allowed, generator) for number in range(1, 11)]
        wrong += choose_winner([finalist(one, 667) for one in found], LATENCY, BOUND).winner is not None
    # Three standard errors of 5 % in so many searches above it.
    assert wrong / searches <= 1 - BOUND.confidence + 0.033
