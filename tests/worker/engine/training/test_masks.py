"""Zeros that pruning made stay; those of a weight that has yet to learn anything do not."""

import numpy as np
import pytest
import torch

from worker.engine.training.masks import zeros_of


@pytest.mark.parametrize(
    ("zeros", "stay"),
    [
        pytest.param(0, False, id="none"),
        pytest.param(1, False, id="by-chance"),
        pytest.param(60, True, id="pruned"),
        pytest.param(100, False, id="never-trained"),
    ],
)
def test_zeros_stay_where_pruning_left_them(zeros: int, stay: bool) -> None:
    weight = torch.ones(100)
    weight[:zeros] = 0.0
    assert set(zeros_of({"weight": weight.reshape(10, 10)})) == ({"weight"} if stay else set())


def test_a_single_zero_that_was_none_before_is_a_pruned_one() -> None:
    weight = torch.ones(10, 10)
    weight[0, 0] = 0.0
    before = np.ones((10, 10), np.float32)
    assert set(zeros_of({"weight": weight}, {"weight": before})) == {"weight"}
    before[0, 0] = 0.0
    assert zeros_of({"weight": weight}, {"weight": before}) == {}
    # A layer that was made narrower is another.
    assert zeros_of({"weight": weight}, {"weight": np.ones((12, 10), np.float32)}) == {}


def test_offsets_are_no_weights() -> None:
    assert zeros_of({"bias": torch.tensor([0.0, 0.0, 1.0])}) == {}
