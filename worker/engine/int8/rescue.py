"""Leaving sensitive units in float until the model is faithful enough.

Units are measured one by one, alone in int8, and given back to float in the order that costs least; how many it takes
is found by halving, each trial being built and measured whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from worker.engine.fidelity import Fidelity, Floor, measure_fidelity
from worker.engine.int8.choosing import Build
from worker.engine.int8.placement import Placement
from worker.engine.int8.sensitivity import Limits, sensitivities_db
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

SENSITIVE = "too much was lost with it, or with what is around it, in int8"
SENSITIVITY_SAMPLES, TRIAL_SAMPLES = 4, 64
# What comes after needs the rest.
LARGEST_SHARE_OF_TIME = 1 / 3

# From sensitivities by unit: their names in the order in which they are given back.
Order = Callable[[Mapping[str, float]], list[str]]


@dataclass(frozen=True)
class Rescue:
    """The placement that holds the floor, or the most faithful one that was tried, as a file."""

    placement: Placement
    model: ModelFile
    floor: Floor
    before: Fidelity
    after: Fidelity
    sensitivities_db: dict[str, float] = field(default_factory=dict)
    trials: int = 0

    @property
    def gives_back(self) -> bool:
        """Whether units were given back to float."""
        return self.after != self.before

    def in_words(self) -> list[str]:
        """One sentence where too much was lost at first, and whether it is still."""
        if self.before.holds(self.floor):
            return []
        if not self.gives_back:
            why = "leaving nodes in float kept no more"
            if not self.trials:
                why = "no time was left to find out which nodes to leave in float"
            return [f"Too much is lost ({self.before.in_words()}, not {self.floor.in_words()}): {why}."]
        short = "" if self.after.holds(self.floor) else f", still short of {self.floor.in_words()}"
        return [
            f"Too much was lost at first ({self.before.in_words()}): nodes were left in float "
            f"({self.after.in_words()}{short})."
        ]


def rescue(
    prepared: ModelFile,
    placement: Placement,
    model: ModelFile,
    build: Build,
    floor: Floor,
    order: Order,
    context: PassContext,
) -> Rescue:
    """`model` is `placement` built; it is returned as it is where it holds the floor."""
    samples = np.arange(TRIAL_SAMPLES)
    before = measure_fidelity(prepared, model, context, samples, context.seconds_left() * LARGEST_SHARE_OF_TIME)
    if before.holds(floor):
        return Rescue(placement, model, floor, before, before)
    # Another floor rests on the same, and the file that units are taken out of says all that they depend on.
    key = "sensitivities", prepared, model.sha256(), SENSITIVITY_SAMPLES
    rows = context.once(key, lambda: _alone_db(prepared, placement, build, context))
    found = {name: float(row[0]) for name, row in rows.items() if len(row) == 1}
    following = order(found)
    best = Rescue(placement, model, floor, before, before, found)
    # How many it takes: more than `low`, and fewer than `high`; it may take them all.
    low, high, trial = 0, len(following) + 1, 0
    while high - low > 1 and not context.lacks(0.0):
        middle = (low + high) // 2
        tried = placement.without(following[:middle], SENSITIVE)
        file = build(tried, context.scratch / f"rescue-{trial}")
        fidelity = measure_fidelity(prepared, file, context, samples, context.seconds_left())
        holds = fidelity.holds(floor)
        held = best.after.holds(floor)
        # Each trial that holds has fewer units in float than the one before it that held.
        if holds or (not held and fidelity.sqnr_db > best.after.sqnr_db):
            best = Rescue(tried, file, floor, before, fidelity, found)
        low, high, trial = (low, middle, trial + 1) if holds else (middle, high, trial + 1)
    return replace(best, trials=trial)


def _alone_db(prepared: ModelFile, placement: Placement, build: Build, context: PassContext) -> dict[str, np.ndarray]:
    """What each unit keeps alone in int8, one number a row, of as many as there is time for."""
    names = [unit.name for unit in placement.in_int8]
    limits = Limits(SENSITIVITY_SAMPLES, context.seconds_left() * LARGEST_SHARE_OF_TIME)
    found = sensitivities_db(prepared, names, placement, build, context, limits)
    context.haste.cut_short |= len(found) < len(names)
    return {name: np.array([value]) for name, value in found.items()}
