"""Leaving the most sensitive units in float until the model is faithful enough.

Units are measured one by one, alone in int8, and given back to float from the worst on; how many it takes is found by
halving, each trial being built and measured whole.
"""

from dataclasses import dataclass, field

import numpy as np

from worker.engine.fidelity import Fidelity, Floor, measure_fidelity
from worker.engine.int8.choosing import Build
from worker.engine.int8.placement import Placement
from worker.engine.int8.sensitivity import Limits, most_sensitive_first, sensitivities_db
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

SENSITIVE = "too much was lost with it in int8"
SENSITIVITY_SAMPLES, TRIAL_SAMPLES = 4, 64
# What comes after needs the rest.
LARGEST_SHARE_OF_TIME = 1 / 3


@dataclass(frozen=True)
class Rescue:
    """The placement that holds the floor, or the most faithful one that was tried, as a file."""

    placement: Placement
    model: ModelFile
    before: Fidelity
    after: Fidelity
    sensitivities_db: dict[str, float] = field(default_factory=dict)

    def in_words(self) -> list[str]:
        """One sentence where units were given back to float."""
        if not self.sensitivities_db:
            return []
        return [
            f"Too much was lost at first ({self.before.in_words()}): the most sensitive nodes were left in float "
            f"({self.after.in_words()})."
        ]


def rescue(
    prepared: ModelFile,
    placement: Placement,
    model: ModelFile,
    build: Build,
    floor: Floor,
    context: PassContext,
) -> Rescue:
    """`model` is `placement` built; it is returned as it is where it holds the floor."""
    before = measure_fidelity(prepared, model, context, np.arange(TRIAL_SAMPLES))
    if before.holds(floor):
        return Rescue(placement, model, before, before)
    names = [unit.name for unit in placement.in_int8]
    limits = Limits(SENSITIVITY_SAMPLES, context.seconds_left() * LARGEST_SHARE_OF_TIME)
    found = sensitivities_db(prepared, names, placement, build, context, limits)
    context.haste.cut_short |= len(found) < len(names)
    worst = most_sensitive_first(found)
    best = Rescue(placement, model, before, before, found)
    # How many it takes: more than `low`, and fewer than `high`; it may take them all.
    low, high, trial = 0, len(worst) + 1, 0
    while high - low > 1 and not context.lacks(0.0):
        middle = (low + high) // 2
        tried = placement.without(worst[:middle], SENSITIVE)
        file = build(tried, context.scratch / f"rescue-{trial}")
        fidelity = measure_fidelity(prepared, file, context, np.arange(TRIAL_SAMPLES))
        holds = fidelity.holds(floor)
        held = best.after.holds(floor)
        # Each trial that holds has fewer units in float than the one before it that held.
        if holds or (not held and fidelity.sqnr_db > best.after.sqnr_db):
            best = Rescue(tried, file, before, fidelity, found)
        low, high, trial = (low, middle, trial + 1) if holds else (middle, high, trial + 1)
    return best
