"""What every place may become, and what it would cost: milliseconds where time is to be small, else weights."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from worker.engine.fidelity import Answers
from worker.engine.low_rank.choosing import Bid, Offer
from worker.engine.low_rank.factoring import Factoring, Option
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.plan import Plan
from worker.engine.pass_contract import PassContext

SENSITIVITY_SAMPLES = 16
LARGEST_SHARE_OF_TIME = 0.25
# The loss at which a place is tried alone: small enough that its noise is in proportion to it.
TRIED_LOSS = 0.03
LEAST_LOSS = 1e-9
# Of a place; between two neighbours of more there is hardly a difference.
MOST_OFFERS = 64
# What narrow products take beyond their share of the multiplications, and a kernel more beyond that; until measured.
INEFFICIENCY, KERNEL_MS = 1.15, 0.003
# Other processes disturb single kernels by as much.
FASTER_SHARE = 0.9


@dataclass
class Costs:
    """`times_ms` by node: of its kernel in float; None where size is what counts. `inefficiencies`: as measured."""

    times_ms: Mapping[str, float] | None = None
    inefficiencies: dict[str, float] = field(default_factory=dict)

    def of(self, name: str, factoring: Factoring, option: Option | None) -> float:
        """Of a place as it is, or as this option."""
        whole = factoring.place.parameters
        if self.times_ms is None:
            return float(whole if option is None else option.shape.parameters)
        if option is None:
            return FASTER_SHARE * self.times_ms[name]
        share = option.shape.products / whole * self.inefficiencies.get(name, INEFFICIENCY)
        return self.times_ms[name] * share + KERNEL_MS * len(option.shape.ranks)

    def learn(self, chosen: Mapping[str, Shape], seen_ms: Mapping[str, float], places: Mapping[str, Factoring]) -> bool:
        """Let what factors were seen to take replace what was assumed; and say whether some do not pay then."""
        if self.times_ms is None:
            return False
        for name, shape in chosen.items():
            alone = self.times_ms[name] * shape.products / places[name].place.parameters
            self.inefficiencies[name] = max(0.0, seen_ms[name] - KERNEL_MS * len(shape.ranks)) / max(alone, 1e-9)
        return any(seen_ms[name] >= FASTER_SHARE * self.times_ms[name] for name in chosen)


def bids_of(
    factorings: Mapping[str, Factoring], options: Mapping[str, list[Option]], felt: Mapping[str, float], costs: Costs
) -> dict[str, Bid]:
    """One a place. `felt`: noise at the outputs, as a share of their power, for all of the place's power lost."""
    return {
        name: Bid(
            costs.of(name, factorings[name], None),
            [
                Offer(option, costs.of(name, factorings[name], option), option.lost * felt.get(name, 1.0))
                for option in offered
            ],
        )
        for name, offered in options.items()
    }


def options_by_rule(
    factorings: Mapping[str, Factoring], energy: float | None, ratio: float | None, costs: Costs
) -> dict[str, list[Option]]:
    """Many of each place; with a rule the one it picks: the cheapest that keeps the energy, the best of the size."""
    found = {}
    for name, factoring in factorings.items():
        offered = factoring.options
        if energy is not None:
            enough = [option for option in offered if option.lost <= 1 - energy]
            offered = sorted(enough, key=lambda one: (costs.of(name, factoring, one), one.lost))[:1]
        elif ratio is not None:
            small = [option for option in offered if option.shape.parameters <= ratio * factoring.place.parameters]
            offered = sorted(small, key=lambda one: (one.lost, costs.of(name, factoring, one)))[:1]
        else:
            offered = offered[:: -(-len(offered) // MOST_OFFERS)]
        if offered:
            found[name] = offered
    return found


def measure_felt(
    plan: Plan, options: Mapping[str, list[Option]], samples: np.ndarray, context: PassContext
) -> dict[str, float]:
    """Every place factored alone: noise at the outputs for a share of its power lost. As long as there is time.

    Places that there was no time for are taken to be like the others.

    Raises:
        ModelFails: a call fails.

    """
    found: dict[str, float] = {}
    answers = Answers.of(plan.model, context, samples[:SENSITIVITY_SAMPLES])
    started, allowed = time.monotonic(), context.seconds_left() * LARGEST_SHARE_OF_TIME
    for number, (name, offered) in enumerate(options.items()):
        if time.monotonic() - started > allowed:
            context.haste.cut_short = True
            break
        option = min(offered, key=lambda one: abs(np.log(max(one.lost, LEAST_LOSS) / TRIED_LOSS)))
        file = plan.write({name: option.shape}, context.scratch / f"alone-{number}")
        noise = 10 ** (-answers.fidelity(file).sqnr_db / 10)
        found[name] = noise / max(option.lost, LEAST_LOSS)
        for path in file.files():
            path.unlink()
    usual = statistics.median(found.values()) if found else 1.0
    return {name: found.get(name, usual) for name in options}
