"""The Pareto front: what nothing else is better than in every respect."""

from collections.abc import Sequence

from app.recipes.auto import ObjectiveWeights
from worker.engine.search.proposals import Trial

# Ratios that differ by less are the same: timings on an idle machine spread as much.
SAME = 1.02
MOST_LIKELY, MOST_GAINING, MOST_OTHERS, MOST_BROKEN = 3, 4, 2, 1
PLAIN = frozenset({"graph", "static", "dynamic", "weights", "float16"})


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """By speed, size, memory where it was measured, and drop; of two that are the same in all of them the earlier."""
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
    """Those that are measured once more, on samples of their own: a few that hold, and the nearest that gain more.

    Beside the front, the ones that gain most, first of those that are likely to be accepted, the best of the plain
    methods, and those that lose least: what beat them on the samples for choosing may fail on the others, and then they
    are there.
    """
    by_gain = sorted((one for one in trials if one.measured), key=lambda one: -one.ratios.gain(weights))
    all_holding = [one for one in by_gain if one.holds and one.drop is not None]
    # What gains nothing cannot win; it may be of the front all the same.
    holding = [one for one in all_holding if one.ratios.gain(weights) > 0]
    front = {one.name for one in pareto_front(trials)}
    chosen = [one for one in holding if one.likely][:MOST_LIKELY]
    chosen += [one for one in holding if one not in chosen][: MOST_GAINING - len(chosen)]
    chosen += [one for one in holding if one.proposal.family in PLAIN and one not in chosen][:1]
    chosen += _safer(chosen, [one for one in holding if one not in chosen])
    chosen += [one for one in all_holding if one.name in front and one not in chosen][:MOST_OTHERS]
    best = holding[0].ratios.gain(weights) if holding else 0.0
    broken = [one for one in by_gain if not one.holds and one.name in front and one.ratios.gain(weights) > best]
    return [*chosen, *sorted(broken, key=lambda one: one.drop or 0.0)[:MOST_BROKEN]]


def _safer(chosen: Sequence[Trial], others: Sequence[Trial]) -> list[Trial]:
    """Of others, the most gaining first, the first that risks half as much as any of the chosen, and the safest.

    None where one of those risks nothing.
    """
    least = min((one.risk for one in chosen), default=0.0)
    if least <= 0:
        return []
    halved = next((one for one in others if one.risk <= least / 2), None)
    safest = min(others, key=lambda one: one.risk, default=None)
    found = [one for one in (halved, safest) if one is not None]
    return found[:1] if halved is safest else found


def _dominates(one: Trial, other: Trial, *, earlier: bool) -> bool:
    mine, theirs = one.ratios, other.ratios
    # Memory is measured where it counts, and else the same of all.
    pairs = ((mine.latency, theirs.latency), (mine.size, theirs.size), (mine.memory, theirs.memory))
    drops = (one.drop or 0.0, other.drop or 0.0)
    if any(its * SAME < others for its, others in pairs) or drops[0] > drops[1]:
        return False
    better = any(its > others * SAME for its, others in pairs) or drops[0] < drops[1]
    return better or earlier
