"""What a cut writes into nodes that count what is taken out holds for feeds of other sizes than it was measured at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker.engine.structure.masking import answers, masked, saved, some_units, structure_of
from tests.worker.networks import normal, prepared
from worker.engine.structure.cutting import cut

MOST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Bounds:
    """Of a Slice that takes channels 2 to 7 of 8, and something of other axes."""

    id: str
    axes: list[int]
    starts: list[int]
    ends: list[int]
    steps: list[int]


BOUNDS = (
    Bounds("all-samples", [0, 1], [0, 2], [MOST, 7], [1, 1]),
    Bounds("all-but-the-border", [1, 2, 3], [2, 1, 1], [7, -1, -1], [1, 1, 1]),
    Bounds("backwards", [-1, -3], [-1, 2], [-MOST, 7], [-1, 1]),
)


def _checked(model: onnx.ModelProto, folder: Path) -> None:
    """Cut as measured on one sample of 6 x 6, it answers five of 9 x 8 as the model that does not read what went."""
    file = saved(model, folder / "model")
    structure = structure_of(file, {"x": normal(1, 3, 6, 6)}, folder / "sizes")
    assert [group.width for group in structure.groups] == [5]
    gone = some_units(structure)
    made = cut(file, structure, gone, folder / "cut")
    onnx.checker.check_model(str(made.path), full_check=True)
    unread = masked(file, structure, gone, folder / "masked")
    feed = {"x": normal(5, 3, 9, 8)}
    for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
        # Leaving out zeros only reorders sums.
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64], ids=str)
@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: bounds.id)
def test_a_slice_keeps_its_bounds_along_axes_that_stay(bounds: Bounds, dtype: type, tmp_path: Path) -> None:
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y) { h = Conv(x, a) k = Slice(h, from, to, axes, steps)"
        " y = Conv(k, c) }",
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
        **{"from": np.array(bounds.starts, dtype), "to": np.array(bounds.ends, dtype)},
        axes=np.array(bounds.axes, dtype),
        steps=np.array(bounds.steps, dtype),
    )
    _checked(model, tmp_path)


def test_a_slice_by_attributes_keeps_them_along_axes_that_stay(tmp_path: Path) -> None:
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y) { h = Conv(x, a)"
        f" k = Slice<axes=[0,1,2], starts=[0,2,1], ends=[{MOST},7,-1]>(h) y = Conv(k, c) }}",
        opset=9,
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
    )
    _checked(model, tmp_path)


def test_bounds_that_another_node_reads_as_well_are_given_anew_in_their_dtype(tmp_path: Path) -> None:
    """Starts, ends and axes of a Slice must be of one."""
    model = prepared(
        "g (float[N,3,H,W] x) => (float[M,4,S,T] y, float[M,4,S,T] z) { h = Conv(x, a) k = Slice(h, from, to, axes)"
        " y = Conv(k, c) u = Conv(x, b) v = Slice(u, from, last, axes) z = Conv(v, d) }",
        a=normal(8, 3, 3, 3, seed=1),
        c=normal(4, 5, 1, 1, seed=2),
        b=normal(5, 3, 1, 1, seed=3),
        d=normal(4, 3, 1, 1, seed=4),
        **{"from": np.array([2], np.int32), "to": np.array([7], np.int32), "last": np.array([5], np.int32)},
        axes=np.array([1], np.int32),
    )
    file = saved(model, tmp_path / "model")
    feed = {"x": normal(2, 3, 6, 6)}
    structure = structure_of(file, feed, tmp_path / "sizes")
    gone = some_units(structure)
    made = cut(file, structure, gone, tmp_path / "cut")
    unread = masked(file, structure, gone, tmp_path / "masked")
    for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-5)
