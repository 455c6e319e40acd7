"""Over the steps: the learning rate, the share of zeros, and the average of the weights."""

from itertools import pairwise

import pytest
import torch

from worker.engine.training.averaging import Average
from worker.engine.training.schedules import cubic_sparsity, learning_rate_share


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [learning_rate_share(step, 100, 0.1) for step in range(100)]
    assert shares[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert max(shares) == shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0 < shares[-1] < 0.001


def test_without_a_warm_up_it_starts_at_its_highest() -> None:
    assert learning_rate_share(0, 10, 0.0) == 1


def test_sparsity_grows_fast_first() -> None:
    shares = [cubic_sparsity(step, 10, 0.1, 0.9) for step in range(12)]
    assert (shares[0], shares[10], shares[11]) == pytest.approx((0.1, 0.9, 0.9))
    assert shares[5] == pytest.approx(0.9 - 0.8 / 8)
    growth = [after - before for before, after in pairwise(shares)]
    assert growth == sorted(growth, reverse=True)


def test_the_average_follows_and_gives_back_what_it_replaced() -> None:
    weights = {"w": torch.zeros(3)}
    average = Average(weights, 0.5)
    weights["w"] += 1.0
    average.update(weights, 0)  # the first steps count for more: a decay of 1 / 10
    assert torch.allclose(average.tensors["w"], torch.full((3,), 0.9))
    average.update(weights, 1000)
    assert torch.allclose(average.tensors["w"], torch.full((3,), 0.95))
    held = torch.tensor([0.1, 0.2, 0.3])
    weights["w"].copy_(held)
    with average.in_place_of(weights):
        assert torch.allclose(weights["w"], torch.full((3,), 0.95))
    assert torch.equal(weights["w"], held)
    assert torch.allclose(average.tensors["w"], torch.full((3,), 0.95))


def test_no_average_leaves_the_weights_in_place() -> None:
    weights = {"w": torch.ones(3)}
    average = Average(weights, None)
    average.update(weights, 0)
    with average.in_place_of(weights):
        assert torch.equal(weights["w"], torch.ones(3))
