"""What is a weight, by who reads it, and along which axis it is summed."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.pruning.places import READ_OTHERWISE, Found, find_places, open_graph
from worker.engine.reasons import CONTROL_FLOW

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")


def _find(model: onnx.ModelProto, folder: Path) -> Found:
    file = ModelFile(networks.save(model, folder))
    names = {name for name, _ in constants_of(file.structure().graph)}
    return find_places(open_graph(file), names, OPERATORS, [])


@dataclass
class Case:
    id: str
    text: str
    constants: dict[str, np.ndarray]
    places: dict[str, tuple[str, int, int]]
    """By name: operator, input axis, groups."""
    reasons: dict[str, str] = field(default_factory=dict)


MATRIX = normal(4, 6)
CASES = [
    Case(
        "conv",
        "g (float[1,4,5,5] x) => (float[1,6,3,3] y) { y = Conv<group=2>(x, w, b) }",
        {"w": normal(6, 2, 3, 3), "b": normal(6)},
        {"w": ("Conv", 1, 1)},
    ),
    Case(
        "transposed-conv",
        "g (float[1,4,5,5] x) => (float[1,6,7,7] y) { y = ConvTranspose<group=2>(x, w) }",
        {"w": normal(4, 3, 3, 3)},
        {"w": ("ConvTranspose", 0, 2)},
    ),
    Case("matmul", "g (float[2,4] x) => (float[2,6] y) { y = MatMul(x, w) }", {"w": MATRIX}, {"w": ("MatMul", 0, 1)}),
    Case(
        "matmul-from-the-left",
        "g (float[6,2] x) => (float[4,2] y) { y = MatMul(w, x) }",
        {"w": MATRIX},
        {"w": ("MatMul", 1, 1)},
    ),
    Case("gemm", "g (float[2,4] x) => (float[2,6] y) { y = Gemm(x, w) }", {"w": MATRIX}, {"w": ("Gemm", 0, 1)}),
    Case(
        "gemm-transposed",
        "g (float[2,6] x) => (float[2,4] y) { y = Gemm<transB=1>(x, w) }",
        {"w": MATRIX},
        {"w": ("Gemm", 1, 1)},
    ),
    Case(
        "through-a-transpose",
        "g (float[2,6] x) => (float[2,4] y) { t = Transpose<perm=[1,0]>(w)\n y = MatMul(x, t) }",
        {"w": MATRIX},
        {"w": ("MatMul", 1, 1)},
    ),
    Case(
        "a-node-constant",
        "g (float[1,2] x) => (float[1,2] y) { w = Constant<value = float[2,2] {1, 2, 3, 4}>()\n y = MatMul(x, w) }",
        {},
        {"w": ("MatMul", 0, 1)},
    ),
    Case(
        "a-table-that-is-a-matrix-as-well",
        "g (float[2,6] x, int64[3] i) => (float[2,4] y, float[3,6] z) { y = Gemm<transB=1>(x, w)\n z = Gather(w, i) }",
        {"w": MATRIX},
        {},
        {"w": READ_OTHERWISE},
    ),
    Case("a-sum", "g (float[4,6] x) => (float[4,6] y) { y = Add(x, w) }", {"w": MATRIX}, {}),
    Case("a-vector", "g (float[2,4] x) => (float[2,1] y) { y = MatMul(x, w) }", {"w": normal(4, 1)}, {}),
    Case(
        "nothing-at-all",
        "g (float[2,3,0] x) => (float[2,3,4] y) { y = MatMul(x, w) }",
        {"w": np.zeros((2, 0, 4), np.float32)},
        {},
    ),
    Case("doubles", "g (double[2,4] x) => (double[2,6] y) { y = MatMul(x, w) }", {"w": MATRIX.astype(np.float64)}, {}),
    Case(
        "control-flow",
        "g (float[2,4] x, bool c) => (float[2,6] y) { y = If(c) <"
        "then_branch = a () => (float[2,6] p) { p = MatMul(x, w) },"
        "else_branch = b () => (float[2,6] q) { q = MatMul(x, w) }> }",
        {"w": MATRIX},
        {},
        {"w": CONTROL_FLOW},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_weight_is_known_by_who_reads_it(case: Case, tmp_path: Path) -> None:
    found = _find(networks.prepared(case.text, **case.constants), tmp_path)
    assert {one.name: (one.operator, one.axis, one.groups) for one in found.places} == case.places
    assert found.reasons == case.reasons


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_both_matrices_of_a_recurrent_cell_are_weights(kind: str, tmp_path: Path) -> None:
    found = _find(networks.recurrent(kind=kind), tmp_path)
    assert {one.name: (one.operator, one.axis) for one in found.places} == {"W": (kind, 2), "R": (kind, 2)}


def test_a_weight_is_seen_through_calls_of_functions(tmp_path: Path) -> None:
    found = _find(networks.with_function(), tmp_path)
    assert {one.name: (one.operator, one.axis) for one in found.places} == {"w": ("MatMul", 0)}
