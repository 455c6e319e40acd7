"""The search itself: trials in the order of what they promise, until nothing is worth its time or time is over."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.jobs.report import TrialOutcome, TrialReport
from app.recipes.auto import ObjectiveWeights, Search
from app.recipes.request import OptimizeRequest
from worker.engine.search.agenda import Agenda, Next
from worker.engine.search.explaining import figures
from worker.engine.search.front import finalists
from worker.engine.search.given import given_proposals
from worker.engine.search.ground import Ground
from worker.engine.search.proposals import Proposal, Trial
from worker.runner.chain import Outcome
from worker.runner.pacing import Pacing
from worker.runner.search.best import BestSoFar
from worker.runner.search.trying import Bench, Tried

# What the last measurement of a finalist takes beyond its calls: fresh processes, loading, turns.
FINALIST_SECONDS = 7.0
# Of the budget, what measuring the finalists is left at least and at most.
LEAST_RESERVE, MOST_RESERVE = 0.1, 0.4
# And what the deployment check of the winner is left at least: it takes what nothing else did.
CHECKING = 0.1
# A trial may overrun what was expected of it so far before it is stopped.
OVERRUN = 3.0
# However quick trials are, as long to build one: what times its choices takes so long, and in haste leaves them out.
LEAST_BUILDING_SECONDS = 20.0
NO_TIME = "No time was left to try it: raise `budget_seconds`."
# Of what an event says of a trial; the report says all of it.
LONGEST_WORDS = 1000


@dataclass
class Found:
    """Everything that was tried, and the files of what could be built."""

    trials: list[Trial] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ended: str = ""


@dataclass
class Searcher:
    """`span` is the part of the job's progress that the search takes."""

    bench: Bench
    ground: Ground
    request: OptimizeRequest
    pacing: Pacing
    span: tuple[float, float]
    best: BestSoFar
    started: float = field(default_factory=time.monotonic)
    found: Found = field(default_factory=Found)

    def run(self) -> Found:
        """Raises OSError: the disk is full."""
        found = self.found
        search = self.request.search or Search()
        agenda = Agenda(self.ground, search, self.bench.weights, self.request.seed)
        following = self._following(agenda, search)
        while (chosen := following(found.trials)) is not None:
            tried = self._try(chosen)
            found.trials.append(tried.trial)
            if tried.outcome is not None and tried.trial.measured:
                found.outcomes[tried.trial.name] = tried.outcome
            told = _while_running(tried.trial, self.bench.weights)
            self.pacing.events.trial(told)
            if tried.outcome is not None:
                self.best.consider(tried.trial, tried.outcome, told)
        found.ended = self._why_ended(found.trials, agenda, search)
        return found

    def _try(self, chosen: Next) -> Tried:
        left = self.seconds_left()
        if left <= 0:  # one that was given: others are not chosen then
            return Tried(Trial(chosen.proposal, 0.0, NO_TIME))
        self._expect(chosen)
        return self.bench.try_out(chosen.proposal, self._most_seconds(chosen, left))

    def _most_seconds(self, chosen: Next, left: float) -> float:
        """What the trial may take of what is left: of those that were given, an equal share for each that waits."""
        given = self.request.search.given if self.request.search else None
        usual = left / (len(given) - len(self.found.trials)) if given else OVERRUN * chosen.trial_seconds
        least = self.bench.most_measuring_seconds + LEAST_BUILDING_SECONDS
        return min(max(least, usual), left)

    def seconds_left(self) -> float:
        """Of the search: what measuring the finalists will take is not its own, with the one that is tried next."""
        budget = self.pacing.budget_seconds
        ground = self.ground
        calls = 4 * ground.call_seconds * ground.selection_samples
        expected = 1 + len(finalists(self.found.trials, self.bench.weights, self.bench.allowed))
        reserve = expected * (FINALIST_SECONDS + min(calls, 20.0))
        checking = CHECKING * budget if self.request.deployment_check else 0.0
        measuring = min(MOST_RESERVE * budget, max(LEAST_RESERVE * budget, reserve))
        return self.pacing.seconds_left() - measuring - checking

    def _following(self, agenda: Agenda, search: Search) -> Callable[[Sequence[Trial]], Next | None]:
        if search.given:
            waiting = given_proposals(search.given)
            return lambda trials: _nth(waiting, len(trials))
        return lambda trials: agenda.following(trials, self.seconds_left())

    def _expect(self, chosen: Next) -> None:
        """Progress by the clock: what is done over what is done and what is to come."""
        done = time.monotonic() - self.started
        whole = max(done + chosen.seconds, 1e-3)
        start, end = self.span
        width = end - start
        at, to = done / whole, min(1.0, (done + chosen.trial_seconds) / whole)
        self.pacing.span(start + width * at, start + width * to)
        self.pacing.phase("searching")
        self.pacing.events.log(f"Trying {chosen.proposal.name}.")

    def _why_ended(self, trials: Sequence[Trial], agenda: Agenda, search: Search) -> str:
        before = sum(trial.cached for trial in trials)
        tried = "1 candidate was tried" if len(trials) == 1 else f"{len(trials)} candidates were tried"
        count = f"{tried}{f' ({before} of them by an earlier search)' if before else ''}"
        if search.given:
            left = sum(trial.failure == NO_TIME for trial in trials)
            return f"{count}, those that were given{f'; for {left} of them no time was left' if left else ''}."
        if len(trials) >= search.max_trials:
            return f"{count}, as many as `max_trials` allows."
        if agenda.following(trials, float("inf")) is not None:
            return f"{count}; for the next one no time was left. A larger `budget_seconds` goes on from here."
        return f"{count}; nothing that was left promised a gain of one in a hundred."


def report_of(trial: Trial, outcome: TrialOutcome, explanation: str, weights: ObjectiveWeights) -> TrialReport:
    """A trial as it is told; no figures of one that failed, and none of memory that does not count."""
    figured = {
        "latency_ratio": trial.latency,
        "size_ratio": trial.ratios.size,
        "memory_ratio": trial.ratios.memory if weights.memory else None,
        "metric": trial.value,
        "drop": trial.drop,
        "holds": trial.holds,
    }
    return TrialReport(
        name=trial.name,
        recipe=[str(one.pass_) for one in trial.proposal.recipe],
        outcome=outcome,
        explanation=explanation,
        seconds=trial.seconds,
        cached=trial.cached,
        **(figured if trial.measured else {}),
    )


def _while_running(trial: Trial, weights: ObjectiveWeights) -> TrialReport:
    """What it came to, before anything can be said of its place among the others."""
    if trial.failure is not None:
        return report_of(trial, "failed", trial.failure[:LONGEST_WORDS], weights)
    return report_of(trial, "tried", figures(trial, weights)[:LONGEST_WORDS], weights)


def _nth(waiting: Sequence[Proposal], number: int) -> Next | None:
    if number >= len(waiting):
        return None
    left = waiting[number:]
    return Next(left[0], left[0].seconds, sum(one.seconds for one in left))
