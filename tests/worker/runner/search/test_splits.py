"""Samples of a search: disjoint, all used, the same under the same seed."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from worker.runner.search.splits import split_roles


@dataclass
class Case:
    id: str
    files: dict[str, str]
    roles: set[str]


CASES = [
    Case("one dataset to judge by", {"evaluation": "a"}, {"calibration", "selection", "evaluation"}),
    Case("one to calibrate on", {"calibration": "a"}, {"calibration", "selection", "evaluation"}),
    Case("one to train on", {"training": "a"}, {"training", "calibration", "selection", "evaluation"}),
    Case("one of each", {"calibration": "a", "training": "b", "evaluation": "c"}, {"training", "selection"}),
    Case("one for two roles", {"calibration": "a", "evaluation": "a"}, {"calibration", "selection", "evaluation"}),
]
COUNTS = {"a": 400, "b": 300, "c": 200}
STARTS = {"a": 0, "b": 10_000, "c": 20_000}


def split(
    files: dict[str, str], folder: Path, seed: int = 0, counts: dict[str, int] = COUNTS, *, trains: bool = True
) -> dict[str, np.ndarray]:
    """By role, the numbers of its samples: every sample of every dataset has its own."""
    arrays = {role: {"x": np.arange(counts[name]) + STARTS[name]} for role, name in files.items()}
    names = {role: f"dataset {name!r}" for role, name in files.items()}
    found = split_roles(arrays, files, names, folder, seed, trains=trains)
    return {role: one["x"] for role, one in found.arrays.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_sample_serves_two_purposes_and_every_one_serves(case: Case, tmp_path: Path) -> None:
    parts = split(case.files, tmp_path)
    assert case.roles <= parts.keys()
    for left, right in combinations(parts.values(), 2):
        assert not set(left.tolist()) & set(right.tolist())
    assert sum(len(part) for part in parts.values()) == sum(COUNTS[name] for name in set(case.files.values()))


@pytest.mark.parametrize(
    ("files", "roles"),
    [
        pytest.param({"training": "a"}, {"calibration": 100, "selection": 100, "evaluation": 200}, id="one for all"),
        pytest.param(
            {"training": "a", "evaluation": "c"}, {"calibration": 400, "selection": 66, "evaluation": 134}, id="two"
        ),
    ],
)
def test_where_nothing_is_trained_all_samples_decide(
    files: dict[str, str], roles: dict[str, int], tmp_path: Path
) -> None:
    parts = split(files, tmp_path, trains=False)
    assert {role: len(part) for role, part in parts.items()} == roles


def test_labels_stay_with_their_samples(tmp_path: Path) -> None:
    arrays = {"evaluation": {"x": np.arange(100.0).reshape(100, 1), "label": np.arange(100)}}
    found = split_roles(arrays, {"evaluation": "a"}, {"evaluation": "dataset 'a'"}, tmp_path, 0)
    for role, part in found.arrays.items():
        assert np.array_equal(part["x"][:, 0], part["label"])
        assert np.array_equal(found.places[role], part["label"])


def test_the_seed_draws_the_samples(tmp_path: Path) -> None:
    first, again, other = (
        split({"evaluation": "a"}, tmp_path / str(number), seed) for number, seed in enumerate((0, 0, 1))
    )
    assert np.array_equal(first["calibration"], again["calibration"])
    assert not np.array_equal(first["calibration"], other["calibration"])


def test_too_few_to_divide_serve_every_purpose_and_it_is_said(tmp_path: Path) -> None:
    arrays = {"evaluation": {"x": np.arange(2)}}
    found = split_roles(arrays, {"evaluation": "a"}, {"evaluation": "dataset 'a'"}, tmp_path, 0)
    assert all(len(part["x"]) == 2 for part in found.arrays.values())
    assert "2 samples in dataset 'a', too few to divide" in found.warnings[0]
    assert found.shared == {"calibration", "selection", "evaluation"}
