"""A mean over all of space becomes GlobalAveragePool; any other mean stays."""

import numpy as np
import pytest

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import prepared
from worker.engine.rewrites.global_pool import pool_globally

IMAGE = "float[2,3,5,7]"


def _mean(attributes: str, output: str, image: str = IMAGE) -> str:
    return f"network ({image} x) => (float[{output}] y) {{ y = ReduceMean<{attributes}>(x) }}"


@pytest.mark.parametrize("axes", ["2, 3", "3, 2", "-2, -1", "2, -1"])
def test_a_mean_over_space_pools(axes: str) -> None:
    found = apply(pool_globally, prepared(_mean(f"axes = [{axes}]", "2,3,1,1")))
    assert (found.count, found.operators) == (1, {"GlobalAveragePool": 1})


def test_axes_that_are_dropped_are_squeezed() -> None:
    found = apply(pool_globally, prepared(_mean("axes = [-1, -2], keepdims = 0", "2,3")))
    assert (found.count, found.operators) == (1, {"GlobalAveragePool": 1, "Squeeze": 1})


@pytest.mark.parametrize(("keepdims", "output"), [(1, "2,3,1,1"), (0, "2,3")])
def test_axes_may_be_a_constant_input(keepdims: int, output: str) -> None:
    text = f"network ({IMAGE} x) => (float[{output}] y) {{ y = ReduceMean<keepdims = {keepdims}>(x, axes) }}"
    found = apply(pool_globally, prepared(text, opset=18, axes=np.array([-2, 3])))
    assert found.count == 1
    assert "ReduceMean" not in found.operators


@pytest.mark.parametrize(
    "text",
    [
        _mean("axes = [1, 2], keepdims = 0", "2,7"),
        _mean("axes = [1, 2, 3], keepdims = 0", "2"),
        _mean("axes = [3], keepdims = 0", "2,3,5"),
        _mean("keepdims = 1", "1,1,1,1"),
        _mean("axes = [1, 2], keepdims = 0", "2", image="float[2,5,7]"),
        f"network ({IMAGE} x) => (float[2,3,1,1] y) {{ y = ReduceMax<axes = [2, 3]>(x) }}",
    ],
    ids=["other-axes", "channels-too", "one-axis", "all-axes", "rank-3", "largest"],
)
def test_any_other_reduction_is_left_alone(text: str) -> None:
    found = apply(pool_globally, prepared(text))
    assert found.count == 0
    assert "GlobalAveragePool" not in found.operators


def test_computed_axes_are_left_alone() -> None:
    """Here they are 2 and 3, for the image has two samples of three channels."""
    text = f"network ({IMAGE} x) => (float[2,3,1,1] y) {{ axes = Shape<end = 2>(x) y = ReduceMean(x, axes) }}"
    assert apply(pool_globally, prepared(text, opset=18)).count == 0


@pytest.mark.parametrize("attributes", ["", ", strides = [2, 2]", ', auto_pad = "VALID"', ", pads = [0, 0, 0, 0]"])
def test_a_window_of_all_of_the_input_pools(attributes: str) -> None:
    text = f"network ({IMAGE} x) => (float[2,3,1,1] y) {{ y = AveragePool<kernel_shape = [5, 7]{attributes}>(x) }}"
    found = apply(pool_globally, prepared(text))
    assert (found.count, found.operators) == (1, {"GlobalAveragePool": 1})


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [5, 6]",
        "kernel_shape = [3, 3], pads = [1, 1, 1, 1]",
        "kernel_shape = [5, 7], pads = [1, 1, 1, 1], strides = [9, 9]",
        'kernel_shape = [5, 7], auto_pad = "SAME_UPPER"',
    ],
    ids=["smaller", "moving", "padded", "same"],
)
def test_any_other_window_is_left_alone(attributes: str) -> None:
    text = f"network ({IMAGE} x) => (float[n,k,h,w] y) {{ y = AveragePool<{attributes}>(x) }}"
    found = apply(pool_globally, prepared(text))
    assert (found.count, found.operators) == (0, {"AveragePool": 1})


def test_a_mean_inside_the_graph_pools_and_its_readers_read_on() -> None:
    text = (
        f"network ({IMAGE} x) => ({IMAGE} y, float[2,3,1,1] y_pooled) "
        "{ m = ReduceMean<axes = [2, 3]>(x) y = Mul(x, m) m_pooled = Neg(m) y_pooled = Exp(m_pooled) }"
    )
    found = apply(pool_globally, prepared(text))
    assert (found.count, found.operators["GlobalAveragePool"]) == (1, 1)
