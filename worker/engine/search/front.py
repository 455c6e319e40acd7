"""The Pareto front: what nothing else is better than in every respect."""

import math
from collections.abc import Sequence

from app.recipes.auto import ObjectiveWeights
from worker.engine.evaluation.acceptance import ROUNDING
from worker.engine.search.proposals import Trial

# Ratios that differ by less are the same: timings on an idle machine spread as much.
SAME = 1.02
# Risks that differ by less, as a share of what is allowed, say nothing of who is safer.
LIKE_RISK = 0.5
# What gains no more than this above another, as a logarithm, is as good: two timings of one file differ by as much.
LEAST_STEP = 0.02
# Measuring takes seconds each. The ends of the front are others as well, and none of them is left out.
MOST_STEPS = 6
MOST_OTHERS, MOST_BROKEN = 2, 1
MOST_RISK = 1e9
EVERYTHING = ObjectiveWeights(latency=1.0, size=1.0, memory=1.0)
PLAIN = frozenset({"graph", "static", "dynamic", "weights", "float16"})


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """By speed, size, memory where it was measured, and drop; of those that are the same in all of them the one that
    gains most in all together, and of equals the earlier.

    What is not on the front keeps nothing off it: of three, each 1.5 % faster than the one before, the middle one is
    the same as both others, and those are not the same.
    """
    measured = [trial for trial in trials if trial.measured and trial.drop is not None]
    front = list[Trial]()
    for trial in sorted(measured, key=lambda one: (one.drop or 0.0, -one.ratios.gain(EVERYTHING))):
        if not any(as_good(kept, trial) for kept in front):
            front.append(trial)
    return [trial for trial in measured if any(kept is trial for kept in front)]


def as_good(one: Trial, other: Trial) -> bool:
    """Whether it is, in every respect, as good as the other or better."""
    mine, theirs = one.ratios, other.ratios
    # Memory is measured where it counts, and else the same of all.
    pairs = ((mine.latency, theirs.latency), (mine.size, theirs.size), (mine.memory, theirs.memory))
    return all(its * SAME >= others for its, others in pairs) and (one.drop or 0.0) <= (other.drop or 0.0)


def steps(trials: Sequence[Trial], weights: ObjectiveWeights, allowed: float) -> list[Trial]:
    """What holds, the safest first, the boldest of those of like risk last; each gains more than all before it.

    In this order finalists are tested until one fails, so one that gains no more than a safer one would only end the
    tests of those behind it. Of two that gain alike the less risky one is tested. Risk and gain are of the samples for
    choosing; `allowed` is the drop that the contract allows.
    """
    gaining = [one for one in trials if one.measured and one.holds and one.drop is not None]
    found: list[Trial] = []
    for one in sorted(gaining, key=lambda one: (_like_risk(one, allowed), one.ratios.gain(weights))):
        last = found[-1] if found else None
        # The first need gain next to nothing: what is a little faster is better than the original.
        if one.ratios.gain(weights) > (last.ratios.gain(weights) + LEAST_STEP if last else 0.0):
            found.append(one)
        elif last and one.risk < last.risk and _like_risk(one, allowed) == _like_risk(last, allowed):
            found[-1] = one
    return found if len(found) <= MOST_STEPS else _evenly(found)


def _evenly(found: Sequence[Trial]) -> list[Trial]:
    """As many as may be, the first and the last among them."""
    return [found[round(number * (len(found) - 1) / (MOST_STEPS - 1))] for number in range(MOST_STEPS)]


def _like_risk(one: Trial, allowed: float) -> int:
    # An error that grows from next to nothing grows by more than a number holds.
    return math.floor(min(one.risk / (allowed or ROUNDING) / LIKE_RISK, MOST_RISK))


def _ends(front: Sequence[Trial]) -> list[Trial]:
    """The fastest, the smallest, the one of least memory and the one that loses least; of equals the earlier."""
    if not front:
        return []
    ends = [
        max(front, key=lambda one: one.ratios.latency),
        max(front, key=lambda one: one.ratios.size),
        min(front, key=lambda one: one.drop or 0.0),
    ]
    # It is measured where it counts.
    if len({one.ratios.memory for one in front}) > 1:
        ends.append(max(front, key=lambda one: one.ratios.memory))
    return [one for number, one in enumerate(ends) if one not in ends[:number]]


def finalists(trials: Sequence[Trial], weights: ObjectiveWeights, allowed: float) -> list[Trial]:
    """Those that are measured once more, on samples of their own: the `steps`, and the nearest that gains more.

    Beside them the best of the plain methods, and of the front its ends, whatever the objective, and what gains most.
    """
    by_gain = sorted((one for one in trials if one.measured), key=lambda one: -one.ratios.gain(weights))
    holding = [one for one in by_gain if one.holds and one.drop is not None]
    front = {one.name for one in pareto_front(trials)}
    chosen = steps(trials, weights, allowed)
    plain = [one for one in holding if one.proposal.family in PLAIN and one.ratios.gain(weights) > 0]
    chosen += [one for one in plain[:1] if one not in chosen]
    of_front = [one for one in holding if one.name in front]
    ends = [one for one in _ends(of_front) if one not in chosen]
    others = [*ends, *(one for one in of_front if one not in [*chosen, *ends])]
    chosen += others[: max(len(ends), MOST_OTHERS)]
    best = max((one.ratios.gain(weights) for one in chosen), default=0.0)
    broken = [one for one in by_gain if not one.holds and one.name in front and one.ratios.gain(weights) > best]
    return [*chosen, *sorted(broken, key=lambda one: one.drop or 0.0)[:MOST_BROKEN]]
