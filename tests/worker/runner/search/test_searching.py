"""How long a trial may take and how it is told, without building one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from app.recipes.auto import ObjectiveWeights
from app.recipes.request import OptimizeRequest
from tests.worker.engine.search.grounds import CONVOLUTIONAL, LATENCY, trial
from worker.engine.model_file import ModelFile
from worker.engine.search.proposals import Proposal, Ratios, Trial
from worker.runner.chain import Outcome
from worker.runner.contract import Best
from worker.runner.events import Events
from worker.runner.pacing import Pacing
from worker.runner.search.best import BestSoFar
from worker.runner.search.searching import Searcher, report_of
from worker.runner.search.trying import Bench, Tried

BUDGET = 7200.0
# Of the budget, what is left to the search where little is to be measured once more.
SEARCH_SHARE = 0.9


class Stopwatch:
    """A bench on which nothing is built and every trial ends at once: it remembers what each might have taken."""

    weights: ObjectiveWeights = LATENCY
    allowed = 0.01
    most_measuring_seconds = 20.0

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def try_out(self, proposal: Proposal, seconds: float) -> Tried:
        self.seconds.append(seconds)
        return Tried(Trial(proposal, 0.0, "Nothing was built."))


def seconds_of(given: Sequence[list[dict[str, Any]]], budget: float, workdir: Path) -> list[float]:
    """What each of the recipes might have taken."""
    body = {"model_id": str(UUID(int=1)), "recipe": "auto", "search": {"given": given}}
    bench, events = Stopwatch(), Events()
    Searcher(
        bench=cast("Bench", bench),
        ground=CONVOLUTIONAL,
        request=OptimizeRequest.model_validate(body),
        pacing=Pacing(events, budget),
        span=(0.0, 1.0),
        best=BestSoFar(workdir, "net", LATENCY, events),
    ).run()
    return bench.seconds


DISTILLED = [{"pass": "distill"}]


def test_a_recipe_that_is_given_alone_has_all_the_time_of_the_search(tmp_path: Path) -> None:
    """As in a replay: three minutes would be another number of epochs than the search had."""
    assert seconds_of([DISTILLED], BUDGET, tmp_path) == [pytest.approx(SEARCH_SHARE * BUDGET, rel=0.01)]


def test_recipes_that_are_given_have_equal_shares_and_what_those_before_them_left(tmp_path: Path) -> None:
    whole = SEARCH_SHARE * BUDGET
    seconds = seconds_of([DISTILLED, DISTILLED, DISTILLED], BUDGET, tmp_path)
    assert seconds == pytest.approx([whole / 3, whole / 2, whole], rel=0.01)


def test_however_many_are_given_none_is_built_in_haste(tmp_path: Path) -> None:
    """A share of 5 s would leave no time for what is chosen by timing."""
    assert min(seconds_of([DISTILLED] * 20, 100.0, tmp_path)) >= Stopwatch.most_measuring_seconds + 20.0


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        pytest.param(ObjectiveWeights(latency=1.0, memory=0.5), 1.5, id="measured"),
        pytest.param(LATENCY, None, id="not measured"),
    ],
)
def test_a_trial_tells_its_memory_where_that_was_measured(weights: ObjectiveWeights, told: float | None) -> None:
    one = replace(trial("float16"), ratios=Ratios(memory=told or 1.0))
    assert report_of(one, "tried", "", weights).memory_ratio == told


class BestEvents(Events):
    """Remembers what was set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Best] = []

    def best(self, best: Best) -> None:
        self.found.append(best)


def near(name: str, latency: float, drop: float = 0.008) -> Trial:
    """It holds, and so near to what is allowed that it is not likely to be accepted."""
    return trial(name, latency, drop=drop)


@pytest.mark.parametrize(
    ("trials", "kept"),
    [
        pytest.param([near("near", 3.0)], ["near"], id="nothing else holds"),
        pytest.param([near("near", 3.0), trial("safe", 1.1)], ["near", "safe"], id="what is safe is better"),
        pytest.param([trial("safe", 1.1), near("near", 3.0)], ["safe"], id="and stays so"),
        pytest.param([near("near", 2.0), near("nearer", 3.0)], ["near", "nearer"], id="of two the one that gains more"),
        pytest.param([near("near", 3.0), near("less", 2.0)], ["near"], id="and not the one that gains less"),
        pytest.param([near("broken", 3.0, drop=0.02)], [], id="beyond the contract"),
        pytest.param([near("slower", 0.9), trial("slow", 0.9)], [], id="no gain"),
    ],
)
def test_what_holds_by_a_hair_is_kept_until_something_holds_safely(
    trials: list[Trial], kept: list[str], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    events = BestEvents()
    best = BestSoFar(tmp_path, "net", LATENCY, events)
    for one in trials:
        best.consider(one, Outcome(ModelFile(model)), report_of(one, "tried", "", LATENCY))
    assert [one.trial.name for one in events.found] == kept
    # By this the supervisor compares them with what an earlier attempt left.
    assert sorted(one.gain for one in events.found) == [one.gain for one in events.found]
