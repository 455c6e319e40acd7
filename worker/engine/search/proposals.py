"""What may be tried, what it is expected to bring, and what became of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.jobs.report import Interval
from app.recipes.auto import ObjectiveWeights
from app.recipes.catalogue import AnyPass

Family = Literal[
    "graph",
    "static",
    "dynamic",
    "weights",
    "float16",
    "pruned",
    "low_rank",
    "taught",
    "shortened",
    "aware",
    "mixed",
    "tuned",
    "smaller",
    "given",
]


@dataclass(frozen=True)
class Ratios:
    """Original over candidate: above 1 is better."""

    latency: float = 1.0
    size: float = 1.0
    memory: float = 1.0

    def gain(self, weights: ObjectiveWeights) -> float:
        """Natural logarithm of the product of the ratios, each to the power of its weight."""
        pairs = ((self.latency, weights.latency), (self.size, weights.size), (self.memory, weights.memory))
        return sum(weight * math.log(max(ratio, 1e-9)) for ratio, weight in pairs if weight)


@dataclass(frozen=True)
class Proposal:
    """A recipe that has not been tried. What it is expected to bring is a guess, and only orders the trials."""

    name: str
    family: Family
    recipe: tuple[AnyPass, ...]
    expected: Ratios
    chance: float
    """That it holds the contract, 0 to 1."""
    seconds: float
    """What building and measuring it takes."""
    always: bool = False
    """It is tried whatever is expected of it, as long as there is time."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a ladder or a sampler chose, for it to learn from the trial."""

    def hope(self, weights: ObjectiveWeights, best: float) -> float:
        """Expected gain over the best so far, as a logarithm."""
        return self.chance * max(0.0, self.expected.gain(weights) - best)


@dataclass(frozen=True)
class Trial:
    """A candidate that was built and measured on the samples for choosing; `failure` says why one was not."""

    proposal: Proposal
    seconds: float
    failure: str | None = None
    latency: Interval | None = None
    """Original's over its own, as measured in one run."""
    ratios: Ratios = field(default_factory=Ratios)
    """The same on one scale with every other trial, for comparing them."""
    size_bytes: int = 0
    value: float | None = None
    """The job's metric."""
    drop: float | None = None
    drop_below: float | None = None
    """What the drop stays below at the contract's confidence, for all that the samples for choosing say."""
    sqnr_db: float | None = None
    """Of its answers to the original's; None also where they are the same."""
    holds: bool = False
    """The drop on the samples for choosing is within the contract."""
    likely: bool = False
    """And by so much that the samples for accepting can be expected to show it."""
    notes: Sequence[str] = ()
    cached: bool = False
    """It was built and measured by an earlier search; `seconds` is what it took there."""

    @property
    def name(self) -> str:
        return self.proposal.name

    @property
    def speed(self) -> float:
        """How many times as fast as the original, as measured."""
        return self.ratios.latency if self.latency is None else self.latency.value

    @property
    def measured(self) -> bool:
        return self.failure is None

    @property
    def risk(self) -> float:
        """How much may be lost on other samples: of a file that changed many answers more than of one that changed few,
        though as many came out better as worse.
        """
        return max(0.0, (self.drop or 0.0) if self.drop_below is None else self.drop_below)


ORIGINAL = Trial(Proposal("original", "graph", (), Ratios(), 1.0, 0.0), 0.0, drop=0.0, holds=True, likely=True)


def best_of(trials: Sequence[Trial], weights: ObjectiveWeights) -> Trial | None:
    """Of those that are likely to be accepted, or else that hold, the one that gains most; the earlier of equals."""
    holding = [trial for trial in trials if trial.measured and trial.holds]
    likely = [trial for trial in holding if trial.likely]
    return max(likely or holding, key=lambda trial: trial.ratios.gain(weights), default=None)


def find(trials: Sequence[Trial], *families: Family) -> list[Trial]:
    return [trial for trial in trials if trial.proposal.family in families and trial.measured]


def key_of(recipe: Sequence[AnyPass]) -> str:
    """The same for the same passes with the same arguments."""
    return "|".join(one.model_dump_json(by_alias=True) for one in recipe)
