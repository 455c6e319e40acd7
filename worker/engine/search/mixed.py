"""Between int8 and float: where the static form loses too much, with as many nodes in float as the contract needs.

Which nodes those are the pass itself finds out, at the least cost of time, once it is told how faithful the whole has
to be. What the contract needs in decibels cannot be told beforehand: a floor that does not suffice is followed by a
higher one, and one that does by one between the two.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from app.recipes.auto import ObjectiveWeights
from app.recipes.quantization import QuantizeStatic
from worker.engine.search.ground import Ground
from worker.engine.search.proposals import Proposal, Ratios, Trial, find

MOST_FLOORS = 4
# The first floor is so much above what the static form kept: half the noise, in amplitude. The next steps are longer.
STEP_DB = 6.0
# Floors closer than this are the same; above the highest nothing in 8 bits is left.
CLOSE_DB, HIGHEST_DB = 2.0, 60.0
# Of what int8 saves, the share that is expected to be left.
LEFT = 0.7


def mixed_proposals(trials: Sequence[Trial], ground: Ground, weights: ObjectiveWeights) -> Iterator[Proposal]:
    """The next floor, where the static form gains something and is not likely to be accepted."""
    static = next(iter(find(trials, "static")), None)
    if static is None or static.likely or static.sqnr_db is None or static.ratios.gain(weights) <= 0:
        return
    tried = [trial for trial in trials if trial.proposal.family == "mixed"]
    # What could not be made at one floor can at none above it.
    if len(tried) >= MOST_FLOORS or not all(trial.measured for trial in tried):
        return
    short = max([(static.sqnr_db, static.ratios), *_floors(tried, likely=False)], key=_floor)
    enough = min(_floors(tried, likely=True), key=_floor, default=None)
    floor = _between(short[0], enough[0]) if enough else max(short[0], 0.0) + STEP_DB * (1 + len(tried))
    if floor is None or floor > HIGHEST_DB:
        return
    yield Proposal(
        name=f"int8, static, {floor:.3g} dB kept",
        family="mixed",
        recipe=(QuantizeStatic(**{"pass": "quantize_static", "fidelity_floor_db": round(floor, 1)}),),
        expected=_expected(short[1], enough[1] if enough else None),
        chance=0.5,
        seconds=20.0 + 10 * ground.forward_seconds + ground.measuring_seconds,
        settings={"floor_db": round(floor, 1)},
    )


def _floors(tried: Sequence[Trial], *, likely: bool) -> list[tuple[float, Ratios]]:
    """In decibels, with what they were measured to gain."""
    return [(float(one.proposal.settings["floor_db"]), one.ratios) for one in tried if one.likely == likely]


def _floor(known: tuple[float, Ratios]) -> float:
    return known[0]


def _between(short_db: float, enough_db: float) -> float | None:
    return (short_db + enough_db) / 2 if enough_db - short_db > CLOSE_DB else None


def _expected(short: Ratios, enough: Ratios | None) -> Ratios:
    """Half way from what does not suffice to what does; where nothing does yet, less by what is usual."""
    if enough is None:
        return Ratios(*(1 + LEFT * (one - 1) if one > 1 else one for one in astuple(short)))
    return Ratios(*(math.sqrt(one * other) for one, other in zip(astuple(short), astuple(enough), strict=True)))
