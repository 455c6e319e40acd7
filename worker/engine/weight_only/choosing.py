"""Choosing by measuring which products run as MatMulNBits: on this machine, at these shapes, in this very graph.

The profiler times every product where it stands, in float and as MatMulNBits, and so proposes; the file with those that
were faster is then timed against the one with none, by turns, and kept only if it is faster as a whole.
"""

import statistics
from dataclasses import dataclass, field
from typing import Any

from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import NodeTime, origin_of
from worker.engine.timing import PROFILE_SECONDS, profiled, times_as_fast, too_short
from worker.engine.turns import is_faster
from worker.engine.weight_only.places import Place
from worker.engine.weight_only.plan import Plan

TURNS_SECONDS = 12.0
ROUNDS = 7
# What a profile proposes must be this much faster in it: other processes disturb single kernels by as much.
PROPOSED_SHARE = 0.9
NO_TIME = "No time was left to measure MatMulNBits: products run in float."
TOO_SMALL = "The model is too small to measure MatMulNBits: products run in float."


@dataclass(frozen=True)
class Kernels:
    """The file, the places that are MatMulNBits in it, and what was measured.

    `ratios` are, a round each, how many times faster the file with MatMulNBits was than the one that stores every
    weight, which is as fast as float; `product_ms` milliseconds in float and as MatMulNBits by name of the weight.
    """

    model: ModelFile
    packed: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    product_ms: dict[str, tuple[float, float]] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        return {
            "ratios": [round(value, 4) for value in self.ratios],
            "product_ms": {name: [round(one, 5) for one in pair] for name, pair in self.product_ms.items()},
        }


def choose_kernels(plan: Plan, context: PassContext) -> Kernels:
    """All weights stored, or with the products that are faster here as MatMulNBits.

    Raises:
        ModelFails: the model does not run.

    """
    folder = context.scratch / "kernels"
    stored = plan.write((), folder / "stored")
    products = plan.packable
    if not products:
        return Kernels(stored)
    in_float = [] if context.lacks(PROFILE_SECONDS) else profiled(stored, context)
    if in_float and too_short(in_float):
        return Kernels(stored, notes=[TOO_SMALL])
    if not in_float or context.lacks(PROFILE_SECONDS + TURNS_SECONDS):
        return Kernels(stored, notes=[NO_TIME])
    everything = plan.write([place.name for place in products], folder / "packed")
    in_bits = profiled(everything, context)
    times = {place.name: (product_ms(place, in_float), product_ms(place, in_bits)) for place in products}
    faster = frozenset(name for name, (before, after) in times.items() if 0 < after < PROPOSED_SHARE * before)
    counted = f"{len(faster)} of {len(products)} products as MatMulNBits"
    if not faster:
        return Kernels(stored, notes=[f"Measured here, {counted} would be faster than in float."], product_ms=times)
    candidate = everything if len(faster) == len(products) else plan.write(faster, folder / "faster")
    measured = times_as_fast([stored, candidate], context, ROUNDS, TURNS_SECONDS)[1]
    kept = is_faster(measured)
    note = (
        f"Measured here against float kernels: with {counted} {statistics.median(measured):.2f} times as fast; "
        f"{'kept' if kept else 'not kept, products run in float'}."
    )
    if kept:
        return Kernels(candidate, faster, [note], measured, times)
    return Kernels(stored, frozenset(), [note], measured, times)


def product_ms(place: Place, times: list[NodeTime]) -> float:
    """Milliseconds of what multiplies by the weight; 0 where the profile does not tell."""
    return sum(time.milliseconds for time in times if stands_for(time, place))


def stands_for(time: NodeTime, place: Place) -> bool:
    """Whether a kernel multiplies by the weight of a place, or applies the activation behind it."""
    return time.origin in {origin_of(name) for name in place.kernel}
