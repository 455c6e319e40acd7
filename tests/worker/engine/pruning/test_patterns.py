"""N:M holds in every group, whichever axis is summed."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.worker.networks import normal
from worker.engine.pruning import patterns
from worker.engine.pruning.patterns import beyond_pattern


@dataclass
class Row:
    id: str
    values: list[float]
    pattern: tuple[int, int]
    removed: list[bool]
    groups: int = 1


ROWS = [
    Row("largest-stay", [1, -4, 3, 2], (2, 4), [True, False, False, True]),
    Row("ties-go-by-position", [1, 1, 1, 1], (2, 4), [True, True, False, False]),
    Row("each-group-by-itself", [9, 8, 1, 2], (1, 2), [False, True, True, False]),
    Row("a-shorter-last-group-keeps-as-many", [1, 2, 3, 4, 5, 4, 3], (2, 4), [True, True] + [False] * 4 + [True]),
    Row("a-last-group-no-longer-than-n-stays", [1, 2, 3, 4, 5, 4], (2, 4), [True, True] + [False] * 4),
    Row("groups-do-not-reach-into-the-next-part", [1, 2, 3, 4, 5, 6], (1, 4), [True, True, False] * 2, groups=2),
    Row("zeros-are-the-first-to-go", [0, 3, 0, -1], (1, 4), [True, False, True, True]),
]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
def test_what_goes_of_a_row(case: Row) -> None:
    values = np.array([case.values], np.float32)
    assert beyond_pattern(values, 1, *case.pattern, case.groups).tolist() == [case.removed]
    assert beyond_pattern(values.T, 0, *case.pattern, case.groups).T.tolist() == [case.removed]


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_every_group_along_the_axis_keeps_its_largest(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SLAB_ELEMENTS", 50)
    values = normal(8, 8, 8, 8)
    taken = np.moveaxis(beyond_pattern(values, axis, 2, 4), axis, -1).reshape(-1, 4)
    magnitudes = np.moveaxis(np.abs(values), axis, -1).reshape(-1, 4)
    assert (taken.sum(axis=1) == 2).all()
    largest_gone = np.where(taken, magnitudes, 0).max(axis=1)
    assert (largest_gone <= np.where(taken, np.inf, magnitudes).min(axis=1)).all()
