"""Which fault strikes when, and what each job of the load is: all of it drawn from one seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What a job of the load is meant to come to, were there no faults."""

    SUCCESS = "success"
    OWN_FAULT = "own fault"  # the user's: its model cannot be run
    CANCEL = "cancel"  # at a moment that is drawn


@dataclass(frozen=True)
class Mix:
    """How many of a hundred jobs have which fate."""

    success: int = 30
    own_fault: int = 40
    cancel: int = 30


@dataclass(frozen=True)
class PlannedJob:
    """One request of the load; `number` goes into its `seed`, by which it is known again in the database."""

    number: int
    workspace: int
    fate: Fate
    keyed: bool
    """Whether it bears an Idempotency-Key, and is sent again until it is answered."""
    breaks_off: bool
    """Whether its connection is cut before the answer, the first time."""
    patience_seconds: float
    """How long the connection stands before it is cut, or the job is there before it is cancelled."""


@dataclass(frozen=True)
class Strike:
    """A fault that strikes as soon as so many jobs are over."""

    number: int
    fault: str
    after_jobs: int


def planned_job(seed: int, number: int, mix: Mix, workspaces: int) -> PlannedJob:
    """The same whoever asks, and when."""
    drawn = random.Random(f"{seed}/job/{number}")  # noqa: S311 - it need not be secret
    fate = drawn.choices(list(Fate), [mix.success, mix.own_fault, mix.cancel])[0]
    keyed = drawn.random() < 0.6
    breaks_off = keyed and drawn.random() < 0.2
    patience = drawn.uniform(0, 0.03) if breaks_off else drawn.uniform(0, 6)
    return PlannedJob(number, drawn.randrange(workspaces), fate, keyed, breaks_off, patience)


def planned_strikes(seed: int, faults: Sequence[str], count: int, jobs: int) -> list[Strike]:
    """Every fault equally often, as far as `count` allows, in an order that is drawn, spread over the jobs."""
    drawn = random.Random(f"{seed}/strikes")  # noqa: S311 - as above
    names: list[str] = []
    while len(names) < count:
        names += drawn.sample(faults, len(faults))
    # None among the last jobs, which would be over before it had struck.
    last = max(1, int(jobs * 0.9))
    moments = sorted(drawn.randrange(last) for _ in range(count))
    return [Strike(number, name, after) for number, (name, after) in enumerate(zip(names, moments, strict=False))]
