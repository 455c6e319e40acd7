"""One candidate built, and measured on the samples for choosing; what goes wrong with it costs the others nothing."""

import time
from dataclasses import dataclass

from app.recipes.auto import ObjectiveWeights
from app.recipes.request import Metric
from worker.engine.evaluation.acceptance import is_within
from worker.engine.faults import UserFault, is_disk_full
from worker.engine.model_file import ModelFile
from worker.engine.search.proposals import Proposal, Ratios, Trial
from worker.passes.registry import load_pass
from worker.runner.chain import Outcome
from worker.runner.measuring import Laboratory, Subject
from worker.runner.search.limit import TimeUp, limit
from worker.runner.search.stock import MeasuredTrial
from worker.runner.search.workshop import BUILT, Workshop
from worker.runner.side_by_side import Standing, measure_beside, why_unmeasured

# A pass that knows its deadline ends before; one that does not is stopped, so much later. A quarter of a long trial
# would be the time in which finalists are measured.
OVERTIME, MOST_OVERTIME_SECONDS = 0.25, 60.0
# What timing and comparing one candidate may take, so that others have their turn.
LEAST_MEASURING_SECONDS, MOST_MEASURING_SECONDS = 8.0, 45.0
# Where time is short, what building has of it.
LEAST_BUILDING_SHARE = 0.5
# How many times as fast as the yardstick the next one is: were a hair enough, each would be the luckiest of its equals,
# and whatever is timed beside it would look the faster for it.
CLEARLY_FASTER = 1.1


@dataclass(frozen=True)
class Tried:
    """A trial, and what was built where it was."""

    trial: Trial
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Yardstick:
    """A candidate that none so far is clearly faster than, timed again beside every new one.

    The original of a small model runs at one speed in one process and at another in the next, by a third and more;
    what was measured in different runs is brought to one scale by what both hold.
    """

    model: ModelFile
    ratio: float

    def scaled(self, ratio: float, own: float | None) -> float:
        """`ratio` on the scale of the run that this one's was measured in; `own` is its own in the new run."""
        return ratio * self.ratio / own if own else ratio

    def or_faster(self, model: ModelFile, ratio: float) -> "Yardstick":
        """The other, where it is clearly faster."""
        return Yardstick(model, ratio) if ratio > CLEARLY_FASTER * self.ratio else self


@dataclass
class Bench:
    """Where candidates are tried: `laboratory` compares on the samples for choosing."""

    workshop: Workshop
    laboratory: Laboratory
    original: Subject
    metric: Metric
    allowed: float
    likely: float
    """The drop up to which a candidate is likely to be accepted."""
    weights: ObjectiveWeights
    measuring_seconds: float
    """What both models need to be timed and compared."""
    yardstick: Yardstick | None = None

    def try_out(self, proposal: Proposal, seconds: float) -> Tried:
        """Build and measure within about so many seconds. A fault of the candidate's is told in its trial."""
        started = time.monotonic()
        outcome, failure = None, None
        try:
            building = max(seconds - self.most_measuring_seconds, LEAST_BUILDING_SHARE * seconds)
            for config in proposal.recipe:
                load_pass(str(config.pass_))  # an import that is stopped half way leaves half a module behind
            with limit(building + min(OVERTIME * building, MOST_OVERTIME_SECONDS)):
                outcome = self.workshop.build(proposal.recipe, building)
        except TimeUp:
            failure = f"It was stopped after {time.monotonic() - started:.0f} s, more than its share of the time."
        except UserFault as error:
            failure = error.fault().detail
        except Exception as error:
            if is_disk_full(error):
                raise
            # A fault of ours in one pass is no reason to lose what the others make.
            failure = f"It could not be made: {why_unmeasured(error)}"
        if outcome is None:
            return Tried(Trial(proposal, time.monotonic() - started, failure))
        self.laboratory.pacing.at(BUILT)
        try:
            left = started + seconds - time.monotonic()
            measuring = min(self.most_measuring_seconds, max(LEAST_MEASURING_SECONDS, left))
            trial = self._recalled(proposal, outcome) or self._measured(proposal, outcome, started, measuring)
        except Exception as error:
            if is_disk_full(error):
                raise
            failure = f"It could not be measured: {why_unmeasured(error)}"
            trial = Trial(proposal, time.monotonic() - started, failure)
        return Tried(trial, outcome)

    @property
    def most_measuring_seconds(self) -> float:
        """Of a trial, what timing and comparing may take."""
        return min(MOST_MEASURING_SECONDS, max(LEAST_MEASURING_SECONDS, 1.5 * self.measuring_seconds))

    def _measured(self, proposal: Proposal, outcome: Outcome, started: float, seconds: float) -> Trial:
        files, yardstick = {"candidate": outcome.model}, self.yardstick
        in_full = min(seconds, self.laboratory.pacing.seconds_left()) >= self.most_measuring_seconds
        beside = {} if yardstick is None else {"yardstick": yardstick.model}
        standings = measure_beside(self.laboratory, self.original, files, self.metric, seconds, timed_only=beside)
        standing = standings["candidate"]
        compared, times = standing.compared, standing.times
        if compared is None or times is None:
            return Trial(proposal, time.monotonic() - started, " ".join(standing.unmeasured))
        latency = times.ratio.value
        if yardstick is not None:
            own = standings["yardstick"].times
            latency = yardstick.scaled(latency, own.ratio.value if own else None)
        self._measure_up(outcome.model, latency)
        trial = Trial(
            proposal=proposal,
            seconds=time.monotonic() - started,
            latency=times.ratio,
            ratios=self._ratios(outcome, standing, latency),
            size_bytes=standing.size_bytes,
            value=compared.metric_candidate,
            drop=compared.drop,
            drop_below=compared.drop_below,
            sqnr_db=next((one.value for one in compared.candidate if one.name == "sqnr_db"), None),
            holds=self._loses_at_most(self.allowed, compared.drop),
            likely=self._loses_at_most(self.likely, compared.drop),
            notes=_notes(outcome),
        )
        if in_full:
            self.workshop.stock.keep_trial(outcome.model, self.metric, trial, with_memory=self._with_memory)
        return trial

    def _recalled(self, proposal: Proposal, outcome: Outcome) -> Trial | None:
        """What an earlier search measured, where all of the candidate is of earlier searches."""
        if outcome.made_here:
            return None
        found = self.workshop.stock.find_trial(outcome.model, self.metric, with_memory=self._with_memory)
        if found is None:
            return None
        # What is new is brought to the scale of what an earlier search measured.
        self._measure_up(outcome.model, found.ratios.latency)
        return self._as_before(proposal, outcome, found)

    def _measure_up(self, model: ModelFile, latency: float) -> None:
        before = self.yardstick
        self.yardstick = Yardstick(model, latency) if before is None else before.or_faster(model, latency)

    def _as_before(self, proposal: Proposal, outcome: Outcome, found: MeasuredTrial) -> Trial:
        return Trial(
            proposal=proposal,
            seconds=found.seconds,
            latency=found.latency,
            ratios=found.ratios,
            size_bytes=outcome.model.size_bytes(),
            value=found.value,
            drop=found.drop,
            drop_below=found.drop_below,
            sqnr_db=found.sqnr_db,
            holds=self._loses_at_most(self.allowed, found.drop),
            likely=self._loses_at_most(self.likely, found.drop),
            notes=_notes(outcome),
            cached=True,
        )

    def _loses_at_most(self, bound: float, drop: float | None) -> bool:
        return drop is not None and is_within(drop, str(self.metric.name), bound)

    @property
    def _with_memory(self) -> bool:
        return bool(self.weights.memory)

    def _ratios(self, outcome: Outcome, standing: Standing, latency: float) -> Ratios:
        memory = 1.0
        if self._with_memory:
            footprint = self.laboratory.examine(outcome.model).footprint
            memory = self.original.footprint.peak_memory_bytes / max(1, footprint.peak_memory_bytes)
        return Ratios(latency, self.original.size_bytes / max(1, standing.size_bytes), memory)


def _notes(outcome: Outcome) -> list[str]:
    return [note for step in outcome.steps for note in step.notes]
