"""Samples of a search: disjoint, all used, the same under the same seed."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from worker.engine.feeds import Feeds
from worker.runner.search.splits import Given, Split, split_roles


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


def given(name: str, x: np.ndarray, **labels: np.ndarray) -> Given:
    """A dataset of this name, with one array for the input `x`."""
    feeds = Feeds({"x": x}, {"x": x.dtype.name}, frozenset(), len(x))
    return Given({"x": x, **labels}, feeds, name, f"dataset {name!r}")


def split(
    files: dict[str, str], folder: Path, seed: int = 0, counts: dict[str, int] = COUNTS, *, trains: bool = True
) -> dict[str, np.ndarray]:
    """By role, the numbers of its samples: every sample of every dataset has its own."""
    datasets = {role: given(name, np.arange(counts[name]) + STARTS[name]) for role, name in files.items()}
    return numbers(split_roles(datasets, folder, seed, trains=trains))


def numbers(found: Split) -> dict[str, np.ndarray]:
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
    rows = given("a", np.arange(100.0).reshape(100, 1), label=np.arange(100))
    found = split_roles({"evaluation": rows}, tmp_path, 0)
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
    found = split_roles({"evaluation": given("a", np.arange(2))}, tmp_path, 0)
    assert all(len(part["x"]) == 2 for part in found.arrays.values())
    assert "2 samples in dataset 'a', too few to divide" in found.warnings[0]
    assert found.shared == {"calibration", "selection", "evaluation"}


@pytest.mark.parametrize("role", ["calibration", "training"])
def test_what_calibrates_or_trains_is_left_out_of_another_dataset_that_decides(role: str, tmp_path: Path) -> None:
    """As where it is the first rows of what is evaluated: the files differ, and the samples are the same."""
    rows = np.arange(400)
    datasets = {role: given("some", rows[:50]), "evaluation": given("all", rows, label=rows)}
    found = split_roles(datasets, tmp_path, 0)
    parts = numbers(found)
    assert not set(range(50)) & {*parts["selection"].tolist(), *parts["evaluation"].tolist()}
    assert len(parts["selection"]) + len(parts["evaluation"]) == 350
    assert np.array_equal(found.arrays["evaluation"]["label"], parts["evaluation"])
    left_out = 267 - len(parts["evaluation"])
    assert found.words["evaluation"] == f"dataset 'all': {len(parts['evaluation'])} of 400 samples"
    assert found.warnings == [
        f"Left out of 133 samples of dataset 'all' to choose by, as the same ones calibrate or train: {50 - left_out}.",
        "Left out of 267 samples of dataset 'all' to accept by, as the same ones calibrate, train or choose: "
        f"{left_out}.",
    ]
    assert not found.shared


def test_a_sample_that_a_dataset_holds_twice_serves_one_purpose(tmp_path: Path) -> None:
    found = split_roles({"training": given("twice", np.tile(np.arange(300), 2))}, tmp_path, 0)
    parts = numbers(found)
    assert len(parts["training"]) == 360
    learned = {*parts["training"].tolist(), *parts["calibration"].tolist()}
    assert not learned & set(parts["selection"].tolist())
    assert not (learned | set(parts["selection"].tolist())) & set(parts["evaluation"].tolist())
    assert len(parts["evaluation"]) > 0


def test_copies_among_what_accepts_are_told_of(tmp_path: Path) -> None:
    datasets = {
        "calibration": given("some", np.arange(1000, 1100)),
        "evaluation": given("twice", np.tile(range(300), 2)),
    }
    found = split_roles(datasets, tmp_path, 0)
    accepting = numbers(found)["evaluation"]
    assert not found.shared
    assert len(set(accepting.tolist())) < len(accepting)
    assert found.warnings[-1].startswith(
        f"Of {len(accepting)} samples of dataset 'twice' to accept by {len(set(accepting.tolist()))} are distinct."
    )


def test_where_all_that_accepts_was_seen_it_serves_all_the_same_and_nothing_is_held_out(tmp_path: Path) -> None:
    rows = np.arange(300)
    found = split_roles({"training": given("all", rows), "evaluation": given("some", rows[:90])}, tmp_path, 0)
    assert len(numbers(found)["evaluation"]) == 60
    assert found.shared == {"selection", "evaluation"}
    assert found.warnings[-1] == (
        "All 60 samples of dataset 'some' to accept by calibrate, train or choose as well: nothing was held out."
    )
