"""Which units go back to float first: those that take most noise with them for what they cost."""

from itertools import pairwise, product

import numpy as np
import pytest

from tests.worker import networks
from worker.engine.graph_file import read_graph
from worker.engine.int8.costs import Costs
from worker.engine.int8.division import cheapest, cheapest_first
from worker.engine.int8.placement import Placement
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile

SIDE = 8


@pytest.fixture
def chain(tmp_path_factory: pytest.TempPathFactory) -> Placement:
    """Six 1 x 1 convolutions, `c0` to `c5`, one behind the other, and all of them in int8."""
    image = f"float[1,{SIDE},4,4]"
    nodes = "".join(f"t{number + 1} = Conv(t{number}, w{number}) " for number in range(6))
    text = f"chain ({image} t0) => ({image} t6) {{ {nodes} }}"
    weights = {f"w{number}": np.eye(SIDE, dtype=np.float32).reshape(SIDE, SIDE, 1, 1) for number in range(6)}
    model = networks.prepared(text, **weights)
    for number, node in enumerate(model.graph.node):
        node.name = f"c{number}"
    units = units_of(read_graph(ModelFile(networks.save(model, tmp_path_factory.mktemp("model")))))
    return Placement.of(units, [unit.name for unit in units])


def _costs(placement: Placement, saved: dict[str, float], conversion: float) -> Costs:
    """`saved` milliseconds by each unit in int8, which takes one; every tensor takes `conversion` to be converted."""
    tensors = [value.name for unit in placement.units for value in (*unit.sources, *unit.outputs)]
    units = {unit.name: (1.0 + saved[unit.name], 1.0) for unit in placement.units}
    return Costs(units, dict.fromkeys((name or "" for name in tensors), conversion))


def test_a_unit_that_saves_little_goes_before_a_noisier_one_that_saves_much(chain: Placement) -> None:
    costs = _costs(chain, {"c0": 10.0, "c1": 1.0, "c2": 1.0, "c3": 1.0, "c4": 1.0, "c5": 1.0}, 0.0)
    known = {"c0": 17.0, "c5": 18.0, "c1": 40.0}
    assert cheapest_first(chain, costs, known) == ["c5", "c0", "c1"]


def test_neighbours_go_together_where_conversions_between_them_cost_more_than_they_save(chain: Placement) -> None:
    """Between `c1` and `c3` in float, `c2` in int8 saves one and needs two conversions: it goes before `c5`."""
    costs = _costs(chain, {"c0": 10.0, "c1": 10.0, "c2": 1.0, "c3": 10.0, "c4": 10.0, "c5": 10.0}, 1.0)
    known = {"c1": 10.0, "c2": 30.0, "c3": 10.0, "c5": 25.0}
    assert cheapest_first(chain, costs, known) == ["c1", "c3", "c2", "c5"]


def test_where_nothing_was_timed_the_most_sensitive_goes_first(chain: Placement) -> None:
    assert cheapest_first(chain, Costs(), {"c0": 17.0, "c1": 40.0, "c5": 16.0}) == ["c5", "c0", "c1"]


def test_all_that_are_known_are_in_the_order_and_no_others(chain: Placement) -> None:
    costs = _costs(chain, dict.fromkeys(("c0", "c1", "c2", "c3", "c4", "c5"), 1.0), 0.5)
    known = {"c0": float("inf"), "c1": -float("inf"), "c2": 20.0, "elsewhere": 1.0}
    assert sorted(cheapest_first(chain, costs, known)) == ["c0", "c1", "c2"]
    assert cheapest_first(chain, costs, known)[0] == "c1"


@pytest.mark.parametrize("seed", range(8))
def test_no_division_is_both_faster_and_quieter_than_what_the_order_passes_through(chain: Placement, seed: int) -> None:
    """Of all 64 divisions, what is left in int8 behind a corner of the hull is the fastest that is as quiet."""
    drawn = np.random.default_rng(seed)
    names = [unit.name for unit in chain.units]
    saved = dict(zip(names, drawn.uniform(0.1, 2.0, len(names)).round(3), strict=True))
    known = dict(zip(names, drawn.uniform(10.0, 40.0, len(names)).round(1), strict=True))
    costs = _costs(chain, saved, round(float(drawn.uniform(0.0, 0.5)), 3))
    noise = {name: 10 ** (-value / 10) for name, value in known.items()}

    def time_of(in_int8: frozenset[str]) -> float:
        forms = [False, *(name in in_int8 for name in names), False]
        crossings = sum(one != other for one, other in pairwise(forms))
        conversion = next(iter(costs.conversions.values()))
        return sum(1.0 if name in in_int8 else 1.0 + saved[name] for name in names) + conversion * crossings

    def noise_of(in_int8: frozenset[str]) -> float:
        return sum(noise[name] for name in in_int8)

    every = [
        frozenset(name for name, chosen in zip(names, bits, strict=True) if chosen)
        for bits in product([False, True], repeat=len(names))
    ]
    order = cheapest_first(chain, costs, known)
    passed = [frozenset(names) - frozenset(order[:count]) for count in range(len(order) + 1)]
    fastest = min(every, key=time_of)
    for worth in np.geomspace(0.1, 1e4, 30):
        least = min(time_of(one) + worth * noise_of(one) for one in every)
        reached = min(time_of(one) + worth * noise_of(one) for one in [fastest, *passed])
        assert reached == pytest.approx(least, rel=1e-5)


def test_the_cheapest_division_leaves_slow_units_in_float_and_says_so(chain: Placement) -> None:
    costs = _costs(chain, {"c0": -1.0, "c1": 1.0, "c2": 1.0, "c3": 1.0, "c4": 1.0, "c5": 1.0}, 0.1)
    kept = cheapest(chain, costs)
    assert kept.quantized == {"c1", "c2", "c3", "c4", "c5"}
    assert "slower than in float here" in kept.reasons["c0"]
