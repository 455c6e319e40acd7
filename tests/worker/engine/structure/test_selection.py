"""How many units go: of a group, and of each of its parts."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker.engine.structure.cases import integers, net
from tests.worker.engine.structure.masking import feed_of, saved, structure_of
from tests.worker.networks import normal
from worker.engine.structure.groups import Structure
from worker.engine.structure.selection import Limits, Macs, by_macs, by_share_of_all, by_shares

START, END = "g (float[N,4,8,8] x) => (float[N,5] y) {", "m = GlobalAveragePool(t) f = Flatten(m) y = Gemm(f, h) }"
SPLIT = (
    f"{START} c = Conv(x, a) r = Relu(c) p, q = Split<axis=1>(r, s) d = Conv<pads=[1,1,1,1]>(q, w) z = Add(q, d) "
    f"t = Concat<axis=1>(p, z) {END}"
)
SUM = f"{START} c = Conv(x, b) d = Conv(x, e) u = Concat<axis=1>(c, d) o = Conv(x, a) t = Add(u, o) {END}"
SLICES = (
    f"{START} c = Conv(x, a) p = Slice(c, i, j, l) q = Slice(c, k, n, l) t = Concat<axis=1>(p, q) "
    "m = GlobalAveragePool(t) f = Flatten(m) y = Gemm(f, v) }"
)
WEIGHTS = {
    "a": normal(32, 4, 1, 1), "b": normal(16, 4, 1, 1), "e": normal(16, 4, 1, 1), "w": normal(16, 16, 3, 3),
    "h": normal(32, 5), "v": normal(40, 5), "s": integers(16, 16),
    "i": integers(0), "j": integers(20), "k": integers(12), "n": integers(32), "l": integers(1),
}  # fmt: skip
LIMITS = Limits(most_share=0.9)


def _structure(text: str, folder: Path) -> Structure:
    model = saved(net(text, **WEIGHTS), folder / "model")
    return structure_of(model, feed_of(model), folder / "sizes")


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        pytest.param(SPLIT, [0, 16], id="halves-of-a-split"),
        pytest.param(SUM, [0, 16], id="added-to-what-is-put-together"),
        pytest.param(SLICES, [0, 12, 20], id="slices-that-overlap"),
        pytest.param(f"{START} t = Conv(x, a) {END}", [0], id="all-along-the-same-axes"),
    ],
)
def test_units_along_the_same_axes_are_found(text: str, starts: list[int], tmp_path: Path) -> None:
    structure = _structure(text, tmp_path)
    (cohorts,) = structure.cohorts.values()
    assert [cohort.tolist() for cohort in cohorts] == [
        list(range(start, end)) for start, end in zip(starts, [*starts[1:], 32], strict=True)
    ]


@pytest.mark.parametrize("text", [SPLIT, SUM])
@pytest.mark.parametrize("multiple", [None, 8])
def test_every_part_is_left_with_a_width_that_kernels_like(text: str, multiple: int | None, tmp_path: Path) -> None:
    structure = _structure(text, tmp_path)
    (group,) = structure.groups
    step = multiple or 4
    for seed in range(20):
        scores = {group.name: normal(32, seed=seed)}
        choice = by_shares(structure, scores, {group.name: 0.5}, Limits(0.9, multiple))
        (gone,) = choice.removed.values()
        assert len(gone) == 16
        first = int((gone < 16).sum())
        assert first % step == 0
        assert set(np.argsort(scores[group.name][:16])[:first]) == set(gone[:first])


@pytest.mark.parametrize("worth_less", [slice(0, 16), slice(16, 32)], ids=["first", "second"])
def test_a_part_that_is_worth_least_is_not_emptied(worth_less: slice, tmp_path: Path) -> None:
    structure = _structure(SPLIT, tmp_path)
    (group,) = structure.groups
    scores = {group.name: np.ones(32)}
    scores[group.name][worth_less] = 0.01
    macs = Macs(saved(net(SPLIT, **WEIGHTS), tmp_path / "again").structure())
    choices = [
        by_shares(structure, scores, {group.name: 0.5}, LIMITS),
        by_share_of_all(structure, scores, 0.99, LIMITS),
        by_macs(structure, scores, macs, 0.01, LIMITS),
    ]
    for choice in choices:
        (gone,) = choice.removed.values()
        # A tenth of 16 has to stay, and a multiple of 4 does.
        assert np.isin(np.arange(32)[worth_less], gone).sum() == 12
