"""What each unit costs on its own: the model with that one alone in int8."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from worker.engine.fidelity import Answers
from worker.engine.int8.choosing import Build
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

# Two samples tell one unit from another. An account is worth less time than what it is of: at most so many seconds, and
# this share of the time that is left.
ACCOUNT_SAMPLES, ACCOUNT_SECONDS, ACCOUNT_SHARE = 2, 60.0, 1 / 20


@dataclass(frozen=True)
class Limits:
    """How many samples a unit is tried on, and how long all units may take together."""

    samples: int
    seconds: float


def sensitivities_db(
    prepared: ModelFile, names: Iterable[str], placement: Placement, build: Build, context: PassContext, limits: Limits
) -> dict[str, float]:
    """SQNR at the model's outputs with one unit of `placement` alone in int8, by name: low is sensitive.

    Of `names`, the first come back that there was time for.
    """
    found: dict[str, float] = {}
    if limits.seconds <= 0:
        return found
    started = time.monotonic()
    answers = Answers.of(prepared, context, np.arange(limits.samples))
    for number, name in enumerate(names):
        if time.monotonic() - started > limits.seconds:
            break
        file = build(Placement(placement.units, frozenset([name])), context.scratch / f"alone-{number}")
        found[name] = answers.fidelity(file).sqnr_db
        for path in file.files():
            path.unlink()
    return found


def account(
    known: Mapping[str, float], prepared: ModelFile, placement: Placement, build: Build, context: PassContext
) -> tuple[dict[str, float], list[str]]:
    """`known` sensitivities, and those of the other units in int8 that there is time for; and what there was no time
    for, in words.
    """
    names = _spread([unit.name for unit in placement.in_int8 if unit.name not in known])
    limits = Limits(ACCOUNT_SAMPLES, min(ACCOUNT_SECONDS, context.seconds_left() * ACCOUNT_SHARE))
    found = sensitivities_db(prepared, names, placement, build, context, limits) if names and limits.seconds > 0 else {}
    short = limits.seconds < ACCOUNT_SECONDS
    why = "the job's time ran short" if short else f"more would have taken over {ACCOUNT_SECONDS:.0f} seconds"
    words = f"Sensitivity was measured of {len(found)} of {len(names)} nodes in int8, from all over the graph: {why}."
    return {**known, **found}, [words] if len(found) < len(names) else []


def _spread(names: list[str]) -> list[str]:
    """The same in an order of which any beginning is spread over the whole: by their numbers' bits, the lowest first
    (J. van der Corput, 1935).
    """
    digits = len(names).bit_length()
    return [names[at] for at in sorted(range(len(names)), key=lambda at: f"{at:0{digits}b}"[::-1])]


def most_sensitive_first(found_db: Mapping[str, float]) -> list[str]:
    """Names from the most to the least sensitive; equals by name."""
    return sorted(found_db, key=lambda name: (found_db[name], name))
