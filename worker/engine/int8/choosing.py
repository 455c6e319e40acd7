"""Choosing the placement by measuring: on this machine, at the shapes of this data, in this very graph.

Kernels are timed where they stand, by the profiler: once in float, once with everything in int8 that has a kernel. A
minimum cut weighs what each unit would save against the conversions around it. Then the candidates are built and timed
as whole files, by turns, and the fastest is kept: an estimate proposes, a measurement decides.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from worker.engine.int8.costs import Costs, Profiles
from worker.engine.int8.placement import Placement
from worker.engine.int8.verification import not_fused
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.timing import PROFILE_SECONDS, profiled, times_as_fast, too_short
from worker.engine.turns import NOISE, is_faster

TURNS_SECONDS = 8.0
MEASURING_SECONDS = 2 * PROFILE_SECONDS + TURNS_SECONDS
ROUNDS = 5

NO_TIME = "No time was left to measure what is faster: everything that has an int8 kernel is in int8."
PLACED_IN_FLOAT = "placed in float by the recipe"
SLOWER = "{} in int8 is slower than in float here, conversions included"
RAN_IN_FLOAT = "in 8 bits ONNX Runtime computes it in float here all the same, as {}"
NO_FASTER = "{} in int8 is no faster than in float here, beyond noise and conversions included"
WORDS = {"everything": "everything that has an int8 kernel in int8", "cut": "slow int8 kernels left in float"}

Build = Callable[[Placement, Path], ModelFile]
# From everything in int8, what it costs and the profiles: what may be faster.
Propose = Callable[[Placement, Costs, Profiles], Placement]


@dataclass(frozen=True)
class Candidate:
    """A placement, built."""

    name: str
    placement: Placement
    model: ModelFile


@dataclass(frozen=True)
class Choice:
    """The fastest placement, and by name what the candidates measured: ratios to the float model, a round each.

    `ran_in_float` are units that did so with everything in int8, and the kernels that stood for them.
    """

    placement: Placement
    ratios: dict[str, list[float]] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    ran_in_float: dict[str, str] = field(default_factory=dict)

    def in_words(self) -> list[str]:
        """What was measured, as one sentence; none where nothing was."""
        if not self.ratios:
            return []
        medians = {name: statistics.median(values) for name, values in self.ratios.items() if name != "float"}
        speeds = ", ".join(f"{WORDS[name]} {median:.2f} times" for name, median in medians.items())
        kept = "the fastest was kept"
        if not self.placement.quantized and _gained(self.ratios):
            kept = f"that is no gain beyond noise (rounds: {len(self.ratios['float'])}), and float is kept"
        return [f"Measured here against float: {speeds} as fast; {kept}."]

    def in_numbers(self, everything: Placement) -> dict[str, np.ndarray]:
        """What was measured, as arrays by name, and what of `everything` was left in float: for `from_numbers`."""
        left = everything.quantized - self.placement.quantized
        return (
            {f"ratios/{name}": np.array(values) for name, values in self.ratios.items()}
            | {f"unit/{name}": np.array(pair) for name, pair in self.costs.units.items()}
            | {f"conversion/{name}": np.array([one]) for name, one in self.costs.conversions.items()}
            | {f"in float/{name}": np.zeros(0) for name in sorted(left)}
            | {f"ran as/{kernel}/{name}": np.zeros(0) for name, kernel in self.ran_in_float.items()}
        )

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, np.ndarray], everything: Placement) -> Self:
        """The choice among all of `everything` that `numbers` were made of."""

        def named(start: str) -> dict[str, list[float]]:
            found = {name: array.tolist() for name, array in numbers.items() if name.startswith(start)}
            return {name.removeprefix(start): values for name, values in found.items()}

        units = {name: (in_float, in_int8) for name, (in_float, in_int8) in named("unit/").items()}
        costs = Costs(units, {name: one for name, (one,) in named("conversion/").items()})
        left, ratios = named("in float/"), named("ratios/")
        ran = {name: kernel for kernel, _, name in (one.partition("/") for one in named("ran as/"))}
        if left.keys() == everything.quantized:
            return cls(_as_it_ran(_nothing_faster(everything, ratios), everything, ran), ratios, costs, ran)
        return cls(_as_it_ran(without_slow(everything, left), everything, ran), ratios, costs, ran)

    def manifest(self) -> dict[str, Any]:
        return {
            "ratios": {name: [round(value, 4) for value in values] for name, values in self.ratios.items()},
            "kernel_ms": {name: [round(one, 5) for one in pair] for name, pair in self.costs.units.items()},
        }


def placement_of_recipe(everything: Placement, placement: str, in_float: Iterable[str]) -> Choice | None:
    """What a recipe's `placement` settles without measuring; None where it asks to measure."""
    if placement == "kernels" or not everything.quantized:
        return Choice(everything)
    return Choice(everything.without(in_float, PLACED_IN_FLOAT)) if placement == "given" else None


def choose_placement(
    prepared: ModelFile, everything: Placement, build: Build, context: PassContext, propose: Propose
) -> Choice:
    """The fastest of: all of `everything` in int8; what `propose` leaves of it; nothing, where neither is known to be
    faster than float.

    Raises:
        ModelFails: the model does not run.

    """
    folder = context.scratch / "placement"
    folder.mkdir()
    in_float = profiled(prepared, context)
    if too_short(in_float):
        return Choice(everything)
    whole = Candidate("everything", everything, build(everything, folder / "everything"))
    profiles = Profiles(in_float, profiled(whole.model, context))
    costs = Costs.of(everything, profiles)
    cut = propose(everything, costs, profiles)
    candidates = [whole]
    if cut.quantized and cut.quantized != everything.quantized:
        candidates.append(Candidate("cut", cut, build(cut, folder / "cut")))
    measured = measure_candidates(prepared, {candidate.name: candidate.model for candidate in candidates}, context)
    best, speed = None, 1.0
    for candidate in candidates:
        ratio = statistics.median(measured[candidate.name])
        # Of two that are faster than float, and equally fast, the earlier is kept.
        if is_faster(measured[candidate.name]) and ratio > speed * NOISE:
            best, speed = candidate, ratio
    chosen = best.placement if best else _nothing_faster(everything, measured)
    ran = {one.name: one.operator for one in not_fused(everything, profiles.in_int8)}
    return Choice(_as_it_ran(chosen, everything, ran), measured, costs, ran)


def measure_candidates(
    prepared: ModelFile, candidates: Mapping[str, ModelFile], context: PassContext
) -> dict[str, list[float]]:
    """How many times as fast as `prepared`, `float` among them, each file is, a round each."""
    measured = times_as_fast([prepared, *candidates.values()], context, ROUNDS, TURNS_SECONDS)
    return dict(zip(["float", *candidates], measured, strict=True))


def _gained(measured: Mapping[str, list[float]]) -> bool:
    """Whether a candidate seemed faster than float, be it by noise."""
    return any(statistics.median(values) > 1 for values in measured.values())


def _nothing_faster(everything: Placement, measured: Mapping[str, list[float]]) -> Placement:
    return without_slow(everything, everything.quantized, NO_FASTER if _gained(measured) else SLOWER)


def _as_it_ran(chosen: Placement, everything: Placement, ran_in_float: Mapping[str, str]) -> Placement:
    """With another reason for units that are in float because no int8 kernel ran for them: none was slow."""
    left = everything.quantized - chosen.quantized
    reasons = {name: RAN_IN_FLOAT.format(kernel) for name, kernel in ran_in_float.items() if name in left}
    return replace(chosen, reasons=chosen.reasons | reasons)


def without_slow(placement: Placement, names: Iterable[str], words: str = SLOWER) -> Placement:
    """Left in float because it measured slower in int8; the reason, made of `words`, says what kind of node."""
    dropped = set(names)
    by_kind: dict[str, list[str]] = {}
    for unit in placement.units:
        if unit.name in dropped:
            by_kind.setdefault(unit.in_words, []).append(unit.name)
    for kind, members in by_kind.items():
        placement = placement.without(members, words.format(kind))
    return placement
