"""Choosing the placement by measuring: on this machine, at the shapes of this data, in this very graph.

Kernels are timed where they stand, by the profiler: once in float, once with everything in int8 that has a kernel. A
minimum cut weighs what each unit would save against the conversions around it. Then the candidates are built and timed
as whole files, by turns, and the fastest is kept: an estimate proposes, a measurement decides.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from worker.engine.int8.cut import Network
from worker.engine.int8.placement import Placement
from worker.engine.int8.units import Unit
from worker.engine.model_file import ModelFile
from worker.engine.nodes import CONV_RANK, rank
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import NodeTime, origin_of, profile
from worker.engine.turns import Conditions, ratios, take_turns

PROFILE_SECONDS, TURNS_SECONDS = 2.0, 8.0
MEASURING_SECONDS = 2 * PROFILE_SECONDS + TURNS_SECONDS
ROUNDS = 5
# Below this much a call is overhead, and its kernels take less than the profiler's clock resolves.
LEAST_MILLISECONDS = 0.3
# Ratios within this are the same: the earlier candidate is kept.
NOISE = 1.02
# A conversion reads and writes a tensor once; next to a convolution the runtime also changes the layout on each side.
LAYOUT_PASSES = 3.0
# Where no QuantizeLinear was seen: what one costs on any machine of the last ten years, within a factor of two.
DEFAULT_NS_PER_ELEMENT = 0.4

NO_TIME = "No time was left to measure what is faster: everything that has an int8 kernel is in int8."
PLACED_IN_FLOAT = "placed in float by the recipe"
WORDS = {"everything": "everything that has an int8 kernel in int8", "cut": "slow int8 kernels left in float"}

Build = Callable[[Placement, Path], ModelFile]
# Milliseconds in float and in int8 of every unit, by name.
UnitTimes = dict[str, tuple[float, float]]
# From everything in int8, the times of its units and both profiles, float first: what may be faster.
Propose = Callable[[Placement, UnitTimes, list[NodeTime], list[NodeTime]], Placement]


@dataclass(frozen=True)
class Candidate:
    """A placement, built."""

    name: str
    placement: Placement
    model: ModelFile


@dataclass(frozen=True)
class Choice:
    """The fastest placement, and by name what the candidates measured: ratios to the float model, a round each."""

    placement: Placement
    ratios: dict[str, list[float]] = field(default_factory=dict)
    unit_times: UnitTimes = field(default_factory=dict)

    def in_words(self) -> list[str]:
        """What was measured, as one sentence; none where nothing was."""
        if not self.ratios:
            return []
        medians = {name: statistics.median(values) for name, values in self.ratios.items() if name != "float"}
        speeds = ", ".join(f"{WORDS[name]} {median:.2f} times" for name, median in medians.items())
        return [f"Measured here against float: {speeds} as fast; the fastest was kept."]

    def in_numbers(self, everything: Placement) -> dict[str, np.ndarray]:
        """What was measured, as arrays by name, and what of `everything` was left in float: for `from_numbers`."""
        left = everything.quantized - self.placement.quantized
        return (
            {f"ratios/{name}": np.array(values) for name, values in self.ratios.items()}
            | {f"unit/{name}": np.array(pair) for name, pair in self.unit_times.items()}
            | {f"in float/{name}": np.zeros(0) for name in sorted(left)}
        )

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, np.ndarray], everything: Placement) -> Self:
        """The choice among all of `everything` that `numbers` were made of."""

        def named(start: str) -> dict[str, list[float]]:
            found = {name: array.tolist() for name, array in numbers.items() if name.startswith(start)}
            return {name.removeprefix(start): values for name, values in found.items()}

        times = {name: (in_float, in_int8) for name, (in_float, in_int8) in named("unit/").items()}
        return cls(without_slow(everything, named("in float/")), named("ratios/"), times)

    def manifest(self) -> dict[str, Any]:
        return {
            "ratios": {name: [round(value, 4) for value in values] for name, values in self.ratios.items()},
            "kernel_ms": {name: [round(one, 5) for one in pair] for name, pair in self.unit_times.items()},
        }


def placement_of_recipe(everything: Placement, placement: str, in_float: Iterable[str]) -> Choice | None:
    """What a recipe's `placement` settles without measuring; None where it asks to measure."""
    if placement == "kernels" or not everything.quantized:
        return Choice(everything)
    return Choice(everything.without(in_float, PLACED_IN_FLOAT)) if placement == "given" else None


def choose_placement(
    prepared: ModelFile, everything: Placement, build: Build, context: PassContext, propose: Propose
) -> Choice:
    """The fastest of: all of `everything` in int8; what `propose` leaves of it; nothing.

    Raises:
        ModelFails: the model does not run.

    """
    feed = context.timed_feed()
    folder = context.scratch / "placement"
    folder.mkdir()
    in_float = profile(prepared, feed, context.threads, folder, PROFILE_SECONDS, context.device)
    if sum(time.milliseconds for time in in_float) < LEAST_MILLISECONDS:
        return Choice(everything)
    whole = Candidate("everything", everything, build(everything, folder / "everything"))
    in_int8 = profile(whole.model, feed, context.threads, folder, PROFILE_SECONDS, context.device)
    times = {unit.name: (_time_of(unit, in_float), _time_of(unit, in_int8)) for unit in everything.units}
    cut = propose(everything, times, in_float, in_int8)
    candidates = [whole]
    if cut.quantized and cut.quantized != everything.quantized:
        candidates.append(Candidate("cut", cut, build(cut, folder / "cut")))
    measured = measure_candidates(prepared, {candidate.name: candidate.model for candidate in candidates}, context)
    best, speed = None, 1.0
    for candidate in candidates:
        ratio = statistics.median(measured[candidate.name])
        if ratio > speed * NOISE:
            best, speed = candidate, ratio
    chosen = best.placement if best else without_slow(everything, everything.quantized)
    return Choice(chosen, measured, times)


def measure_candidates(
    prepared: ModelFile, candidates: Mapping[str, ModelFile], context: PassContext
) -> dict[str, list[float]]:
    """How many times as fast as `prepared`, `float` among them, each file is, a round each."""
    feed = context.timed_feed()
    paths = [prepared.path, *(model.path for model in candidates.values())]
    conditions = Conditions(context.threads, ROUNDS, TURNS_SECONDS, context.device)
    timings = take_turns(paths, [feed] * len(paths), conditions)
    return dict(zip(["float", *candidates], ratios(timings), strict=True))


def _time_of(unit: Unit, times: list[NodeTime]) -> float:
    """Milliseconds of the kernels that stand for the unit."""
    names = set(unit.kernel_names)
    return sum(time.milliseconds for time in times if time.kind != "conversion" and time.origin in names)


def _conversion_ns(in_int8: list[NodeTime]) -> float:
    """Nanoseconds an element of a QuantizeLinear."""
    seen = [time for time in in_int8 if time.operator == "QuantizeLinear" and time.elements]
    elements = sum(time.elements for time in seen)
    return sum(time.milliseconds for time in seen) * 1e6 / elements if elements else DEFAULT_NS_PER_ELEMENT


def _element_counts(*profiles: list[NodeTime]) -> dict[str, int]:
    """Elements that each kernel returned, by the name that it stands for."""
    return {time.origin: time.elements for times in profiles for time in times}


def minimum_cut(
    everything: Placement, times: UnitTimes, in_float: list[NodeTime], in_int8: list[NodeTime]
) -> Placement:
    """The division into int8 and float that takes least time, conversions between them included."""
    ns, elements = _conversion_ns(in_int8), _element_counts(in_float, in_int8)
    units = [unit for unit in everything.units if unit.name in everything.quantized]
    index = {node: number for number, unit in enumerate(units) for node in unit.nodes}
    network = Network([_ns(times[unit.name][1]) for unit in units], [_ns(times[unit.name][0]) for unit in units])
    tensors = dict.fromkeys(value for unit in units for value in (*unit.sources, *unit.outputs))
    for value in tensors:
        producer = value.producer()
        maker = index.get(producer) if producer is not None else None
        readers = sorted({index[use.node] for use in value.uses() if use.node in index})
        outside = value.is_graph_output() or any(use.node not in index for use in value.uses())
        names = [value.name, *(node.name for node in ([producer] if producer else []))]
        count = max(elements.get(origin_of(name or ""), 0) for name in names) if producer else _elements_of(value)
        passes = LAYOUT_PASSES if rank(value) == CONV_RANK else 1.0
        cost = int(count * ns * passes)
        emits_float = maker is not None and everything.emits_float(units[maker])
        network.tensor(None if emits_float else maker, readers, cost, cost, outside)
    chosen = {units[number].name for number in network.in_int8()}
    return without_slow(everything, everything.quantized - chosen)


def _elements_of(value: ir.Value) -> int:
    """Of an input of the graph, which no kernel returns; an axis of unknown size is mostly a batch of one."""
    return math.prod(size for size in value.shape if isinstance(size, int)) if value.shape is not None else 0


def without_slow(placement: Placement, names: Iterable[str]) -> Placement:
    """Left in float because it measured slower in int8; the reason says what kind of node."""
    dropped = set(names)
    by_kind: dict[str, list[str]] = {}
    for unit in placement.units:
        if unit.name in dropped:
            by_kind.setdefault(unit.in_words, []).append(unit.name)
    for kind, members in by_kind.items():
        placement = placement.without(members, f"{kind} in int8 is slower than in float here, conversions included")
    return placement


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1e6)
