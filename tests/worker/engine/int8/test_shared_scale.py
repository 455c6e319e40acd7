"""Which products have one weight scale for all of their channels, and what that loses."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from tests.worker.networks import normal, prepared
from worker.engine.graph_file import read_graph
from worker.engine.int8.shared_scale import sharing
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile

UNEVEN = normal(64, 32)
UNEVEN[:, 0] *= 100


@dataclass(frozen=True)
class Case:
    name: str
    body: str
    shape: tuple[int, ...]
    shares: bool
    weight: np.ndarray


CASES = [
    Case("one row", "(float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", (1, 64), True, normal(64, 32)),
    Case("64 rows just fit", "(float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", (64, 64), True, normal(64, 32)),
    Case("65 rows", "(float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", (65, 64), False, normal(64, 32)),
    Case("Gemm", "(float[N,64] x) => (float[N,32] y) { y = Gemm(x, w) }", (1, 64), True, normal(64, 32)),
    Case("one loud channel", "(float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", (1, 64), False, UNEVEN),
    Case(
        "a convolution", "(float[N,8,4,4] x) => (float[N,8,4,4] y) { y = Conv(x, w) }", (1, 8, 4, 4), False,
        normal(8, 8, 1, 1),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_products_of_few_rows_share_where_channels_spread_alike(
    case: Case, saved: Callable[[onnx.ModelProto], ModelFile]
) -> None:
    graph = read_graph(saved(prepared(f"network {case.body}", w=case.weight)))
    found = sharing(units_of(graph), graph.graph.inputs, {"x": np.zeros(case.shape, np.float32)})
    assert bool(found) is case.shares


def test_rows_of_unknown_number_share_nothing(saved: Callable[[onnx.ModelProto], ModelFile]) -> None:
    """Behind a selection nobody knows how many rows there are."""
    body = "(float[N,64] x) => (float[M,32] y) { z = NonZero(x) s = Transpose(z) f = Cast<to=1>(s) y = MatMul(f, w) }"
    graph = read_graph(saved(prepared(f"network {body}", w=normal(2, 32))))
    assert not sharing(units_of(graph), graph.graph.inputs, {"x": np.ones((1, 64), np.float32)})
