"""How far structure can be cut: by bisection, a rung at a time, on what the contract says of the last one.

What a cut costs in accuracy cannot be told beforehand, but grows with it: so the first rung is a half, a rung that
holds is followed by a deeper one, and one that does not by one between it and the deepest that did. To hold means here
that it is likely to be accepted: what holds by a hair is not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.recipes.auto import ObjectiveWeights
from app.recipes.aware import QuantizeAwareTraining
from app.recipes.catalogue import AnyPass
from app.recipes.factorization import FactorizeLowRank
from app.recipes.quantization import QuantizeDynamic, QuantizeStatic
from app.recipes.structure import PruneStructured
from app.recipes.training import Distill
from worker.engine.search.ground import Ground, amdahl
from worker.engine.search.proposals import Family, Proposal, Ratios, Trial, find

TRAINED: frozenset[Family] = frozenset({"taught", "shortened", "aware"})
FIRST_RUNG, DEEPER = 0.5, 0.6
LEAST_RUNG, MOST_RUNGS = 0.03, 6
# So many rungs that came to nothing are stepped over: what training cannot better is good as it was cut.
MOST_FAILED = 2
# Rungs closer than this are the same.
CLOSE = 1.2
# Few to choose from, the most first: a later search has other seconds left, and what was trained is found again only
# where it is to be trained for as many.
EPOCHS = (8, 4, 2, 1)
# Training takes this share of the time that is left, so that other candidates have theirs.
TRAINING_SHARE = 0.3


@dataclass(frozen=True)
class Way:
    """A way of cutting; `fixed` is the share of a call that it makes no shorter, until a rung has been measured.

    Of untrained cuts fewer hold than of trained ones. Narrower layers take as many calls of kernels as before; what
    goes with its block takes none.
    """

    family: Family
    words: str
    remove: Literal["units", "blocks"]
    fixed: float
    chance: float


PRUNED = Way("pruned", "", "units", fixed=0.2, chance=0.4)
TAUGHT = Way("taught", "", "units", fixed=0.2, chance=0.65)
SHORTENED = Way("shortened", " in fewer blocks", "blocks", fixed=0.1, chance=0.5)


@dataclass(frozen=True)
class Tail:
    """What follows a cut: the precision that served best by itself so far."""

    words: str
    passes: tuple[AnyPass, ...]
    speed: float
    size: float
    chance: float


def rungs(trials: Sequence[Trial], way: Way) -> float | None:
    """The next share of multiply-accumulates to leave; None where the ladder ends."""
    family = way.family
    tried = [(float(trial.proposal.settings["left"]), trial.likely) for trial in find(trials, family)]
    spoiled = {
        float(one.proposal.settings["left"]) for one in trials if one.proposal.family == family and not one.measured
    }
    held = min((left for left, holds in tried if holds), default=1.0)
    failed = max((left for left, holds in tried if not holds), default=0.0)
    following = math.sqrt(held * failed) if failed else held * DEEPER
    if not tried:
        following = _first_rung(trials, way)
    while round(following, 3) in spoiled:
        following *= DEEPER
    ended = len(tried) >= MOST_RUNGS or following < LEAST_RUNG or len(spoiled) > MOST_FAILED
    return None if ended or (failed and held / failed < CLOSE) else round(following, 3)


def _first_rung(trials: Sequence[Trial], way: Way) -> float:
    """A half; where units go, with training below what did without, since what that reached is had already."""
    if way.remove == "blocks":
        return FIRST_RUNG
    without = min((float(one.proposal.settings["left"]) for one in find(trials, "pruned") if one.holds), default=1.0)
    return min(FIRST_RUNG, without * DEEPER)


def tail_of(trials: Sequence[Trial], weights: ObjectiveWeights) -> Tail:
    """The form in fewer bits that holds and gains most by itself; where size counts, stored weights among them.

    One that breaks the contract by itself would break it behind every cut, and hide which of them hold without it.
    """
    stored: tuple[Family, ...] = ("weights",) if weights.size else ()
    found = [trial for trial in find(trials, "static", "dynamic", "mixed", *stored) if trial.holds]
    best = max(found, key=lambda trial: trial.ratios.gain(weights), default=None)
    if best is None or best.ratios.gain(weights) <= 0:
        return Tail("", (), 1.0, 1.0, 1.0)
    return Tail(f", {best.name}", best.proposal.recipe, best.ratios.latency, best.ratios.size, 0.9)


def pruned_proposals(trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights) -> Iterator[Proposal]:
    """Units taken out and layers fitted anew, without training."""
    left = rungs(trials, PRUNED)
    if left is None:
        return
    tail = tail_of(trials, weights)
    yield Proposal(
        name=f"{100 * left:.3g}% of the multiply-accumulates{tail.words}",
        family="pruned",
        recipe=(_cut(left, PRUNED), *tail.passes),
        expected=_cut_ratios(trials, left, tail, PRUNED),
        chance=_chance(trials, PRUNED) * tail.chance,
        seconds=_cutting_seconds(trials, ground) + ground.measuring_seconds + _tail_seconds(tail, ground),
        settings={"left": left},
    )


def taught_proposals(
    trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights, seconds_left: float
) -> Iterator[Proposal]:
    """Units, or whole blocks, taken out, then taught by the original what they lost."""
    epochs = epochs_within(ground, seconds_left)
    if epochs is None:
        return
    for way in (TAUGHT, SHORTENED):
        left = rungs(trials, way)
        if left is not None and (way.remove == "units" or left >= ground.left_without_blocks):
            yield _taught(left, way, trials, ground, tail_of(trials, weights), epochs)


def surer_proposals(
    cuts: Sequence[Trial], trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights, seconds_left: float
) -> Iterator[Proposal]:
    """Cuts that hold without training, taught all the same: what they changed may show on other samples."""
    epochs = epochs_within(ground, seconds_left)
    if epochs is None:
        return
    for cut in cuts:
        left = float(cut.proposal.settings["left"])
        yield _taught(left, TAUGHT, trials, ground, tail_of(trials, weights), epochs)


def _taught(left: float, way: Way, trials: Sequence[Trial], ground: Ground, tail: Tail, epochs: int) -> Proposal:
    training = epochs * ground.epoch_seconds()
    return Proposal(
        name=f"{100 * left:.3g}% of the multiply-accumulates{way.words}, distilled{tail.words}",
        family=way.family,
        recipe=(_cut(left, way), Distill(**{"pass": "distill", "epochs": epochs}), *tail.passes),
        expected=_cut_ratios(trials, left, tail, way),
        chance=_chance(trials, way) * tail.chance,
        seconds=2.0
        + _cutting_seconds(trials, ground)
        + training
        + ground.measuring_seconds
        + _tail_seconds(tail, ground),
        settings={"left": left, "epochs": epochs},
    )


def low_rank_proposals(trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights) -> Iterator[Proposal]:
    """Weights factored where that measures faster; once, since the pass itself looks for the ranks."""
    if find(trials, "low_rank"):
        return
    tail = tail_of(trials, weights)
    yield Proposal(
        name=f"low rank{tail.words}",
        family="low_rank",
        recipe=(FactorizeLowRank(**{"pass": "factorize_low_rank"}), *tail.passes),
        expected=Ratios(tail.speed * amdahl(ground.product_share, 1.5), tail.size * 1.2, 1.0),
        chance=0.4 * tail.chance,
        seconds=15.0 + 12 * ground.forward_seconds + ground.measuring_seconds + _tail_seconds(tail, ground),
    )


def aware_proposals(
    trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights, seconds_left: float
) -> Iterator[Proposal]:
    """Where rounding to int8 broke the contract: the same with weights and scales trained around the rounding.

    The static form itself, what was cut in front of it, and cuts that were taught and are likely to hold in float.
    """
    epochs = epochs_within(ground, seconds_left)
    static = next((one for one in find(trials, "static") if one.ratios.gain(weights) > 0), None)
    if epochs is None or static is None:
        return
    for trial in find(trials, "static", "taught", "shortened"):
        last, cut = trial.proposal.recipe[-1], trial.proposal.family != "static"
        if trial.ratios.gain(weights) <= 0 or trial.likely == isinstance(last, QuantizeStatic):
            continue
        if not isinstance(last, QuantizeStatic | Distill):
            continue
        in_float = isinstance(last, Distill)
        recipe = trial.proposal.recipe if in_float else trial.proposal.recipe[:-1]
        speed = trial.ratios.latency * (static.ratios.latency if in_float else 1.0)
        size = trial.ratios.size * (static.ratios.size if in_float else 1.0)
        aware = QuantizeAwareTraining(**{"pass": "quantize_aware_training", "epochs": epochs})
        yield Proposal(
            name=f"{trial.name}, trained around the rounding",
            family="aware",
            recipe=(*recipe, aware),
            expected=replace(trial.ratios, latency=speed, size=size),
            chance=0.35 if cut else 0.6,
            seconds=12.0 + 10 * ground.forward_seconds + 2 * epochs * ground.epoch_seconds() + ground.measuring_seconds,
            settings={"epochs": epochs},
        )


def epochs_within(ground: Ground, seconds_left: float) -> int | None:
    """The most of EPOCHS that a fair share of the time allows; None where not even one, or nothing is to learn from."""
    if not ground.training_samples:
        return None
    share = TRAINING_SHARE * seconds_left
    return next((epochs for epochs in EPOCHS if epochs * ground.epoch_seconds() <= share), None)


def seconds_to_train(ground: Ground) -> float:
    """The time that has to be left for `epochs_within` to find one epoch in it."""
    return EPOCHS[-1] * ground.epoch_seconds() / TRAINING_SHARE


def _cut(left: float, way: Way) -> PruneStructured:
    blocks = {"remove": ["blocks"]} if way.remove == "blocks" else {}
    return PruneStructured(**{"pass": "prune_structured", "target": {"mac_ratio": left}} | blocks)


def _cut_ratios(trials: Sequence[Trial], left: float, tail: Tail, way: Way) -> Ratios:
    """Amdahl's law with the share that cuts do not reach, as the deepest rung so far showed it."""
    reached = 1 - way.fixed
    same = ("pruned", "taught") if way.remove == "units" else ("shortened",)
    measured = [trial for trial in find(trials, *same) if trial.ratios.latency > 0]
    if measured:
        deepest = min(measured, key=lambda trial: float(trial.proposal.settings["left"]))
        share = float(deepest.proposal.settings["left"])
        of_the_tail = tail.speed if len(deepest.proposal.recipe) > 1 else 1.0
        time = of_the_tail / deepest.ratios.latency
        reached = min(1.0, max(0.0, (1 - time) / (1 - share)))
    speed = 1 / (1 - reached + reached * left)
    return Ratios(tail.speed * speed, tail.size / left, tail.size / left)


def _chance(trials: Sequence[Trial], way: Way) -> float:
    """Between a rung that held and one that did not it is even; below all that held, as often as rungs did so far."""
    return 0.5 if find(trials, way.family) else way.chance


def _cutting_seconds(trials: Sequence[Trial], ground: Ground) -> float:
    """What may go is scored for the first cut; for the others that is known."""
    if find(trials, "pruned", "taught", "shortened"):
        return 4.0 + 6 * ground.forward_seconds
    return 10.0 + 12 * ground.forward_seconds


def _tail_seconds(tail: Tail, ground: Ground) -> float:
    quantizes = any(isinstance(one, QuantizeStatic | QuantizeDynamic) for one in tail.passes)
    return 8.0 + 6 * ground.forward_seconds if quantizes else 0.0
