"""Which units run in int8: the division that takes least time, and what changes the more faithful it has to be.

Each unit in int8 adds noise to the answers. Noise of different units adds up, as far as they are independent, so that
time plus `worth` times noise is again the cost of a cut. The divisions that are cheapest for one worth or another are
the corners of the lower convex hull of all divisions over noise and time; each lies between its neighbours, and is
found by the worth at which those two cost the same. M. J. Eisner, D. G. Severance, Mathematical techniques for
efficient record segmentation in large shared databases, Journal of the ACM 23, 1976.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from worker.engine.int8.choosing import without_slow
from worker.engine.int8.costs import Costs
from worker.engine.int8.cut import NEVER, Network
from worker.engine.int8.placement import Placement
from worker.engine.int8.sensitivity import most_sensitive_first

# Enough to tell the units of a large model apart; a cut takes some milliseconds.
MOST_CUTS = 64
# A unit alone that leaves less than this of the signal is as bad as one that leaves nothing.
WORST_DB = -60.0


@dataclass(frozen=True)
class _Corner:
    """A division that is the cheapest for some worth; `noise` is relative to the signal."""

    in_int8: frozenset[str]
    ns: int
    noise: float


def cheapest(everything: Placement, costs: Costs) -> Placement:
    """The division into int8 and float that takes least time, conversions between them included."""
    chosen = _Cuts(everything, costs, {}).at(0.0)
    return without_slow(everything, everything.quantized - chosen.in_int8)


def cheapest_first(placement: Placement, costs: Costs, sensitivities_db: Mapping[str, float]) -> list[str]:
    """Units in int8 of known sensitivity, in the order in which giving them back to float costs least time for the
    noise that it takes away; from the worst on where no time was measured.
    """
    known = {name: value for name, value in sensitivities_db.items() if name in placement.quantized}
    if not costs.units:
        return most_sensitive_first(known)
    noise = {name: 10 ** (-(value if value > WORST_DB else WORST_DB) / 10) for name, value in known.items()}
    order: list[str] = []
    for corner in _hull(_Cuts(placement, costs, noise)):
        going = known.keys() - corner.in_int8 - set(order)
        order += most_sensitive_first({name: known[name] for name in going})
    return order + most_sensitive_first({name: known[name] for name in known.keys() - set(order)})


class _Cuts:
    """The units of a placement that are in int8, to be divided anew for any worth of noise."""

    def __init__(self, placement: Placement, costs: Costs, noise: Mapping[str, float]) -> None:
        self._units = placement.in_int8
        self._noise = [noise.get(unit.name, 0.0) for unit in self._units]
        times = [costs.units.get(unit.name, (0.0, 0.0)) for unit in self._units]
        self._float_ns, self._int8_ns = [_ns(time) for time, _ in times], [_ns(time) for _, time in times]
        self._tensors = _tensors(placement, costs)

    def at(self, worth_ns: float) -> _Corner:
        """The cheapest division where all the noise that equals the signal is worth so many nanoseconds."""
        paid = [min(int(worth_ns * noise), NEVER) for noise in self._noise]
        network = Network(
            [min(ns + extra, NEVER) for ns, extra in zip(self._int8_ns, paid, strict=True)], self._float_ns
        )
        for maker, readers, ns, read_in_float in self._tensors:
            network.tensor(maker, readers, ns, ns, read_in_float)
        found = network.divide()
        noise = sum(self._noise[number] for number in found.in_int8)
        names = frozenset(self._units[number].name for number in found.in_int8)
        return _Corner(names, found.ns - sum(paid[number] for number in found.in_int8), noise)

    def quietest(self) -> _Corner:
        """No unit in int8 that makes noise."""
        least = min((noise for noise in self._noise if noise), default=1.0)
        return self.at(NEVER / least)


def _hull(cuts: _Cuts) -> list[_Corner]:
    """From the fastest division to the quietest, as many as there are or as may be looked for."""
    found = [cuts.at(0.0), cuts.quietest()]
    between = deque([(found[0], found[1])])
    while between and len(found) < MOST_CUTS:
        loud, quiet = between.popleft()
        if loud.noise <= quiet.noise or quiet.ns <= loud.ns:
            continue
        corner = cuts.at((quiet.ns - loud.ns) / (loud.noise - quiet.noise))
        if corner.in_int8 not in (loud.in_int8, quiet.in_int8):
            found.append(corner)
            between += [(loud, corner), (corner, quiet)]
    return sorted(found, key=lambda corner: -corner.noise)


def _tensors(placement: Placement, costs: Costs) -> list[tuple[int | None, list[int], int, bool]]:
    """What units meet: the number of its maker where that hands out 8 bits, its readers' numbers, nanoseconds to
    convert it, and whether something that is no unit reads it.
    """
    units = placement.in_int8
    index = {node: number for number, unit in enumerate(units) for node in unit.nodes}
    found = []
    for value in dict.fromkeys(value for unit in units for value in (*unit.sources, *unit.outputs)):
        producer = value.producer()
        maker = index.get(producer) if producer is not None else None
        emits_float = maker is not None and placement.emits_float(units[maker])
        readers = sorted({index[use.node] for use in value.uses() if use.node in index})
        outside = value.is_graph_output() or any(use.node not in index for use in value.uses())
        ns = _ns(costs.conversions.get(value.name or "", 0.0))
        found.append((None if emits_float else maker, readers, ns, outside))
    return found


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1e6) if milliseconds > 0 else 0
