"""The Pareto front: what nothing else is better than in every respect."""

from collections.abc import Sequence

from app.recipes.auto import ObjectiveWeights
from worker.engine.search.proposals import Trial

# Ratios that differ by less are the same: timings on an idle machine spread as much.
SAME = 1.02
MOST_HOLDING, MOST_BROKEN = 5, 2


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """By speed, size and drop; of two that are the same in all three the earlier."""
    measured = [trial for trial in trials if trial.measured and trial.drop is not None]
    return [
        trial
        for number, trial in enumerate(measured)
        if not any(
            _dominates(other, trial, earlier=place < number)
            for place, other in enumerate(measured)
            if other is not trial
        )
    ]


def finalists(trials: Sequence[Trial], weights: ObjectiveWeights) -> list[Trial]:
    """Of the front, those that are measured once more and delivered: the best that hold, and some that gain more."""
    front = sorted(pareto_front(trials), key=lambda trial: -trial.ratios.gain(weights))
    holding = [trial for trial in front if trial.holds]
    best = holding[0].ratios.gain(weights) if holding else 0.0
    broken = [trial for trial in front if not trial.holds and trial.ratios.gain(weights) > best]
    nearest = sorted(broken, key=lambda trial: trial.drop or 0.0)
    return [*holding[:MOST_HOLDING], *nearest[:MOST_BROKEN]]


def _dominates(one: Trial, other: Trial, *, earlier: bool) -> bool:
    pairs = ((one.ratios.latency, other.ratios.latency), (one.ratios.size, other.ratios.size))
    drops = (one.drop or 0.0, other.drop or 0.0)
    if any(mine * SAME < theirs for mine, theirs in pairs) or drops[0] > drops[1]:
        return False
    better = any(mine > theirs * SAME for mine, theirs in pairs) or drops[0] < drops[1]
    return better or earlier
