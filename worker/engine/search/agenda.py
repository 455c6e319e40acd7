"""What is tried next: what gains most for the time it takes, as far as that can be told."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from app.recipes.auto import ObjectiveWeights, Search
from worker.engine.search.ground import Ground
from worker.engine.search.ladders import (
    MOST_RUNGS,
    PRUNED,
    SHORTENED,
    TAUGHT,
    TRAINED,
    aware_proposals,
    low_rank_proposals,
    pruned_proposals,
    seconds_to_train,
    surer_proposals,
    taught_proposals,
)
from worker.engine.search.mixed import MOST_FLOORS, mixed_proposals
from worker.engine.search.proposals import Family, Proposal, Trial, best_of, find, key_of
from worker.engine.search.space import allowed, first_proposals, smaller_proposals
from worker.engine.search.tuning import MOST_SAMPLES, Tuner

# Below an expected gain of one in a hundred nothing is worth its time.
LEAST_HOPE = 0.01
# A trial may take this many times what it was expected to before the next ones are expected to as well.
LEAST_PACE, MOST_PACE = 0.25, 4.0
MOST_OF_A_KIND: Mapping[Family, int] = {
    **dict.fromkeys((PRUNED.family, TAUGHT.family, SHORTENED.family), MOST_RUNGS),
    "mixed": MOST_FLOORS,
    "tuned": MOST_SAMPLES,
}


@dataclass(frozen=True)
class Next:
    """What to try, what that is expected to take on this machine, and the whole search still, this trial included."""

    proposal: Proposal
    trial_seconds: float
    seconds: float


class Agenda:
    """Orders proposals; holds nothing but what it was told of the search and the sampler's memory."""

    def __init__(self, ground: Ground, search: Search, weights: ObjectiveWeights, seed: int) -> None:
        self._ground, self._search, self._weights = ground, search, weights
        self._tuner = Tuner(weights, seed)

    def following(self, trials: Sequence[Trial], seconds_left: float) -> Next | None:
        """None where nothing is worth its time, or has the time, or as many candidates as asked for were tried."""
        if len(trials) >= self._search.max_trials:
            return None
        best = best_of(trials, self._weights)
        gain = best.ratios.gain(self._weights) if best else 0.0
        pace = self._pace(trials)
        fitting = [one for one in self.open(trials, seconds_left) if one.seconds * pace <= seconds_left]
        worth = {id(one): one.hope(self._weights, max(gain, 0.0)) for one in fitting}
        wanted = [one for one in fitting if one.always or worth[id(one)] >= LEAST_HOPE]
        if not wanted:
            surer = next((one for one in self._surer(trials, seconds_left) if one.seconds * pace <= seconds_left), None)
            return None if surer is None else Next(surer, pace * surer.seconds, pace * surer.seconds)
        able = self._leaving_time_to_train(wanted, trials, seconds_left / pace)
        # The plain methods come first, so that what builds on them stands on measurements; then worth for its time.
        chosen = max(able, key=lambda one: (one.always, worth[id(one)] / one.seconds, -one.seconds))
        whole = pace * sum(one.seconds * _times(one, trials) for one in wanted)
        return Next(chosen, pace * chosen.seconds, min(seconds_left, whole))

    def open(self, trials: Sequence[Trial], seconds_left: float) -> Iterator[Proposal]:
        """What the request allows and was not tried."""
        proposals = chain(
            first_proposals(trials, self._ground),
            smaller_proposals(trials, self._ground),
            mixed_proposals(trials, self._ground, self._weights),
            low_rank_proposals(trials, self._ground, self._weights),
            pruned_proposals(trials, self._ground, self._weights),
            self._trained(trials, seconds_left),
            self._tuner.proposals(trials, self._ground),
        )
        yield from self._new(proposals, trials)

    def _surer(self, trials: Sequence[Trial], seconds_left: float) -> Iterator[Proposal]:
        """With nothing left that promises more, and time: cuts that hold are taught, to be the more likely accepted.

        The most gaining first; not those that something less risky gains as much as.
        """
        if not self._search.training:
            return
        holding = [one for one in trials if one.measured and one.holds]
        cuts = [one for one in find(holding, "pruned") if one.risk and not self._outdone(one, holding)]
        best_first = sorted(cuts, key=lambda one: -one.ratios.gain(self._weights))
        yield from self._new(surer_proposals(best_first, trials, self._ground, self._weights, seconds_left), trials)

    def _outdone(self, cut: Trial, holding: Sequence[Trial]) -> bool:
        gain = cut.ratios.gain(self._weights)
        return any(one.risk <= cut.risk / 2 and one.ratios.gain(self._weights) >= gain for one in holding)

    def _new(self, proposals: Iterable[Proposal], trials: Sequence[Trial]) -> Iterator[Proposal]:
        tried = {key_of(trial.proposal.recipe) for trial in trials}
        # One name is one candidate: that less time is left for its epochs makes it no other.
        named = {trial.name for trial in trials}
        for proposal in proposals:
            key = key_of(proposal.recipe)
            known = key in tried or proposal.name in named
            if not known and allowed(proposal.recipe, self._search, self._ground.device):
                tried.add(key)
                yield proposal

    def _trained(self, trials: Sequence[Trial], seconds_left: float) -> Iterator[Proposal]:
        if self._search.training:
            yield from taught_proposals(trials, self._ground, self._weights, seconds_left)
            yield from aware_proposals(trials, self._ground, self._weights, seconds_left)

    def _leaving_time_to_train(
        self, wanted: Sequence[Proposal], trials: Sequence[Trial], seconds_left: float
    ) -> Sequence[Proposal]:
        """Those that a trained candidate has its time behind, until one was tried.

        Training takes longest, and by worth for its time it would come when none is left; it is also what goes
        furthest. What it builds on is tried before it all the same.
        """
        trained = [one for one in wanted if one.family in TRAINED]
        if not trained or any(trial.proposal.family in TRAINED for trial in trials):
            return wanted
        reserve = max(min(one.seconds for one in trained), seconds_to_train(self._ground))
        return [one for one in wanted if one.always or one.family in TRAINED or seconds_left - one.seconds >= reserve]

    def _pace(self, trials: Sequence[Trial]) -> float:
        """How long trials take here, over what was expected of them."""
        # What failed early says nothing of how long it takes; what was stopped does.
        carried_out = [
            trial for trial in trials if not trial.cached and (trial.measured or trial.seconds > trial.proposal.seconds)
        ]
        expected = sum(trial.proposal.seconds for trial in carried_out)
        taken = sum(trial.seconds for trial in carried_out)
        return min(MOST_PACE, max(LEAST_PACE, taken / expected)) if expected and taken else 1.0


def _times(proposal: Proposal, trials: Sequence[Trial]) -> float:
    """How many of its kind will be tried, this one included: ladders and the sampler show one at a time."""
    most = MOST_OF_A_KIND.get(proposal.family, 1)
    return 1 + max(0, most - 1 - len(find(trials, proposal.family))) / 2
