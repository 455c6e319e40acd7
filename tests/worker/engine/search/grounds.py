"""Models that a search stands before, trials that it has made, and whole searches without a machine."""

from collections.abc import Callable
from typing import Any

from app.recipes.auto import ObjectiveWeights, Search
from app.recipes.quantization import QuantizeStatic
from worker.engine.search.agenda import Agenda
from worker.engine.search.ground import Ground
from worker.engine.search.proposals import Family, Proposal, Ratios, Trial

PLENTY = 10_000.0
Measure = Callable[[Proposal], Trial]
LATENCY = ObjectiveWeights(latency=1.0)
SIZE = ObjectiveWeights(size=1.0)
CONVOLUTIONAL = Ground(
    call_seconds=0.005,
    load_seconds=0.0,
    size_bytes=10_000_000,
    convolution_share=0.9,
    product_share=0.02,
    calibration_samples=256,
    selection_samples=500,
    training_samples=0,
    has_vnni=True,
    device="cpu",
)


def trial(
    name: str,
    latency: float = 1.0,
    size: float = 1.0,
    drop: float = 0.0,
    family: Family = "static",
    allowed: float = 0.01,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> Trial:
    """A candidate that was measured so; its recipe is told apart by its name."""
    recipe = (QuantizeStatic(**{"pass": "quantize_static", "exclude": [name]}),)
    ratios = Ratios(latency, size)
    proposal = Proposal(name, family, recipe, ratios, 0.5, 10.0, settings=settings or {})
    known = {"holds": drop <= allowed, "likely": drop <= allowed / 2} | more
    return Trial(proposal, 10.0, ratios=ratios, drop=drop, **known)


def measured(proposal: Proposal, latency: float, drop: float = 0.0, size: float = 1.0) -> Trial:
    bounds = {"holds": drop <= 0.01, "likely": drop <= 0.003}
    return Trial(proposal, proposal.seconds, ratios=Ratios(latency, size), drop=drop, **bounds)


def searched(measure: Measure, search: Search | None = None, ground: Ground = CONVOLUTIONAL) -> list[Trial]:
    """A whole search in which `measure` stands for the machine."""
    trials: list[Trial] = []
    agenda = Agenda(ground, search or Search(), LATENCY, seed=0)
    while (following := agenda.following(trials, PLENTY)) is not None:
        trials.append(measure(following.proposal))
        assert len(trials) < 100
    return trials
