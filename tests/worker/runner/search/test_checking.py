"""How long the winner may be checked, without checking it."""

from pathlib import Path
from typing import Any, cast

import pytest

from app.jobs.report import Deployment
from app.recipes.request import Metric
from tests.worker import networks
from tests.worker.engine.search.grounds import LATENCY
from tests.worker.runner.optimizing import prepare_job
from worker.engine.feeds import Feeds
from worker.runner import deployment
from worker.runner.deployment import Terms
from worker.runner.events import Events
from worker.runner.job_data import JobData
from worker.runner.opening import open_job
from worker.runner.search import run as running
from worker.runner.search.accepting import Bound
from worker.runner.search.data import SearchData
from worker.runner.search.delivery import Ending
from worker.runner.search.searching import Found


class Winner:
    """Of which nothing was measured."""

    subject = None


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [pytest.param(180.0, 90.0, id="no more than it can use"), pytest.param(40.0, 40.0, id="all that is left")],
)
def test_the_check_takes_what_the_search_has_left(
    budget: float, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes after it: of a budget that the search did not spend, a part would lie idle."""
    asked: list[Terms] = []

    def noting(*arguments: Any) -> Deployment:
        asked.append(arguments[-1])
        return Deployment(checks=[], seconds=0.0)

    monkeypatch.setattr(deployment, "check_deployment", noting)
    job = prepare_job(tmp_path, networks.perceptron(), {}, budget, recipe="auto", deployment_check=True)
    feeds = Feeds({}, {}, frozenset(), 1)
    data = JobData(feeds, feeds, feeds, batch=1, labels={}, words={})
    unmeasured = cast("Any", None)
    ending = Ending(
        opened=open_job(job, tmp_path, Events()),
        data=SearchData(data, data),
        bound=Bound(Metric(name="agreement"), 0.01, 0.95),
        weights=LATENCY,
        original=unmeasured,
        turn=unmeasured,
        found=Found(),
        finalists=[cast("Any", Winner())],
        measured=[],
        accepted=True,
        tested=frozenset(),
        front=frozenset(),
        warnings=[],
        seconds=0.0,
    )
    assert running._checked(ending).deployment is not None
    (terms,) = asked
    # Opening the model took a little of it.
    assert seconds - 20 < terms.seconds <= seconds
