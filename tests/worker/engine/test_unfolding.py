"""What folding would store a second time, or make large of little, is left to be computed at load."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker.networks import holding, normal
from tests.worker.passes.quantizing import apply_pass
from worker.engine.preparation import operator_counts

# 77 kB, beyond what is taken for small.
TABLE = normal(300, 64)
TIED = holding(
    "network (int64[N,5] ids) => (float[N,5,300] y) { e = Gather(table, ids) i = Identity(e) r = Relu(i) "
    "t = Transpose<perm = [1, 0]>(table) y = MatMul(r, t) }",
    table=TABLE,
)
EXPANDED = holding(
    "network (float[N,200,100] x) => (float[N,200,100] y) { s = Concat<axis = 0>(one, sizes) c = Expand(two, s) "
    "i = Identity(x) y = Mul(i, c) }",
    one=np.array([1]),
    sizes=np.array([200, 100]),
    two=np.array([2], np.float32),
)
OWN = holding(
    "network (float[N,64] x) => (float[N,300] y) { t = Transpose<perm = [1, 0]>(table) y = MatMul(x, t) }", table=TABLE
)
IDS, ROWS = np.zeros((2, 5), np.int64), np.ones((2, 200, 100), np.float32)


@pytest.mark.parametrize(
    ("model", "arrays", "again"),
    [(TIED, {"ids": IDS}, "Transpose"), (EXPANDED, {"x": ROWS}, "Expand")],
    ids=["table-that-is-read-twice", "much-of-little"],
)
def test_folding_does_not_make_the_file_larger(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], again: str, tmp_path: Path
) -> None:
    result = apply_pass("optimize_graph", model, tmp_path, arrays)
    counts = operator_counts(result.model.structure())
    assert (counts.get(again), "Identity" in counts) == (1, False), result.notes
    # Names, and shapes that are inferred.
    assert result.model.size_bytes() < model.ByteSize() + 500
    assert "What folding made so is computed when the file is loaded instead, as before." in result.notes


def test_a_constant_that_takes_the_place_of_another_stays_folded(tmp_path: Path) -> None:
    result = apply_pass("optimize_graph", OWN, tmp_path, {"x": normal(2, 64)})
    assert operator_counts(result.model.structure()) == {"MatMul": 1}
    assert not any("Folding made" in note for note in result.notes)


def test_a_pass_that_reads_such_constants_says_what_they_cost(tmp_path: Path) -> None:
    result = apply_pass("quantize_weights", TIED, tmp_path, {"ids": IDS}, kernels="stored")
    assert "Folding made 0.1 MB of constants from small ones or beside their originals: t." in result.notes
