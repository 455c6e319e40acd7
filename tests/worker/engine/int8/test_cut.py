"""The cut finds the division that costs least, conversions included."""

from itertools import product

import numpy as np
import pytest

from worker.engine.int8.cut import Network


def test_a_faster_unit_among_slower_ones_is_not_worth_two_conversions() -> None:
    network = Network(int8_ns=[100, 10, 100], float_ns=[50, 50, 50])
    network.tensor(None, [0], 5, 5, False)
    network.tensor(0, [1], 30, 30, False)
    network.tensor(1, [2], 30, 30, False)
    network.tensor(2, [], 5, 5, True)
    assert network.divide().in_int8 == set()


def test_it_is_worth_cheap_ones() -> None:
    network = Network(int8_ns=[100, 10, 100], float_ns=[50, 50, 50])
    network.tensor(None, [0], 5, 5, False)
    network.tensor(0, [1], 5, 5, False)
    network.tensor(1, [2], 5, 5, False)
    network.tensor(2, [], 5, 5, True)
    assert network.divide().in_int8 == {1}


@pytest.mark.parametrize("seed", range(20))
def test_no_other_division_of_a_random_graph_costs_less(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = 7
    int8, floats = generator.integers(1, 100, count).tolist(), generator.integers(1, 100, count).tolist()
    tensors = []
    for maker in [None, *range(count)]:
        later = range(0 if maker is None else maker + 1, count)
        readers = [reader for reader in later if generator.random() < 0.4]
        tensors.append(
            (maker, readers, int(generator.integers(60)), int(generator.integers(60)), generator.random() < 0.2)
        )

    def cost(chosen: set[int]) -> int:
        total = sum(int8[k] if k in chosen else floats[k] for k in range(count))
        for maker, readers, enter, leave, outside in tensors:
            made = maker in chosen
            if not made and any(reader in chosen for reader in readers):
                total += enter
            if made and (outside or any(reader not in chosen for reader in readers)):
                total += leave
        return total

    network = Network(int8, floats)
    for tensor in tensors:
        network.tensor(*tensor)
    least = min(cost({k for k in range(count) if bits[k]}) for bits in product([False, True], repeat=count))
    found = network.divide()
    assert cost(set(found.in_int8)) == found.ns == least
