"""Samples into steps."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.worker.networks import normal
from worker.engine.feeds import Feeds
from worker.engine.training.batches import Batches, TooFewSamples, find_finite, split
from worker.engine.training.targets import Target


def _feeds(count: int, fixed: int | None = None, whole: bool = False) -> Feeds:
    array = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    array = array[:, None] if whole else array
    return Feeds({"x": array}, {"x": "float32"}, frozenset({"x"} if whole else ()), count, fixed)


def _batches(feeds: Feeds, size: int, samples: np.ndarray | None = None) -> Batches:
    chosen = np.arange(feeds.sample_count) if samples is None else samples
    target = Target("y", "label", np.arange(feeds.sample_count) * 10, 1)
    return Batches(feeds, chosen, size, 0, torch.device("cpu"), [target])


@pytest.mark.parametrize(("count", "share", "held"), [(100, 0.1, 10), (2, 0.01, 1), (3, 0.99, 2), (7, 0.5, 4)])
def test_what_judges_is_not_trained_on(count: int, share: float, held: int) -> None:
    parts = split(np.arange(count), share, seed=0)
    assert len(parts.held_out) == held
    assert sorted([*parts.training, *parts.held_out]) == list(range(count))
    assert np.array_equal(parts.held_out, split(np.arange(count), share, seed=0).held_out)


def test_what_is_left_out_is_on_neither_side() -> None:
    parts = split(np.array([1, 4, 5, 9]), 0.5, seed=0)
    assert sorted([*parts.training, *parts.held_out]) == [1, 4, 5, 9]


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        pytest.param({7: NAN, 12: -INFINITY, 3: INFINITY}, [3, 7, 12], id="single samples"),
        pytest.param(dict.fromkeys(range(11), -INFINITY) | {15: NAN}, [15], id="beside a mask"),
        pytest.param(dict.fromkeys(range(11), -INFINITY), [], id="a mask"),
        pytest.param(dict.fromkeys(range(11), NAN) | {15: INFINITY}, [*range(11), 15], id="beside what is unknown"),
        pytest.param({}, [], id="none"),
    ],
)
@pytest.mark.parametrize("form", [{}, {"fixed": 3}, {"whole": True}], ids=["rows", "fixed", "whole"])
def test_samples_that_are_no_numbers_are_found(
    values: dict[int, float], found: list[int], form: dict[str, Any]
) -> None:
    feeds = _feeds(20, **form)
    for row, value in values.items():
        feeds.arrays["x"][row, ..., 1] = value
    finite = find_finite(feeds, 6)
    assert [*finite.strange.get("x", [])] == found
    assert bool(finite.strange) is bool(found)
    assert finite.samples.tolist() == [sample for sample in range(20) if sample not in found]
    assert finite.read == 20


def test_what_is_too_large_for_its_input_is_infinite() -> None:
    feeds = Feeds({"x": np.array([[1.0], [1e300]])}, {"x": "float32"}, frozenset(), 2)
    with np.errstate(over="ignore"):
        assert {name: samples.tolist() for name, samples in find_finite(feeds, 6).strange.items()} == {"x": [1]}


@pytest.mark.parametrize("padded", [4, 6], ids=["in-some-samples", "in-most"])
def test_padding_that_is_masked_is_no_fault(padded: int) -> None:
    """Masked throughout nothing is left to attend to: NaN would come out."""
    masks = np.zeros((10, 1, 1, 5), np.float32)
    masks[:padded, ..., 3:] = -INFINITY
    given = {"mask": masks, "x": np.ones((10, 5), ml_dtypes.bfloat16)}
    given["x"][2, 0] = -INFINITY
    feeds = Feeds(given, {"mask": "float32", "x": "bfloat16"}, frozenset(), 10)
    assert {name: samples.tolist() for name, samples in find_finite(feeds, 4).strange.items()} == {"x": [2]}
    masks[9] = -INFINITY
    assert find_finite(feeds, 4).strange["mask"].tolist() == [9]


def test_no_more_is_looked_at_than_is_asked_for() -> None:
    feeds = _feeds(20)
    feeds.arrays["x"][[1, 2, 15], 0] = NAN
    finite = find_finite(feeds, 4, most=6)
    assert (finite.samples.tolist(), finite.read) == ([0, 3, 4, 5, 6, 7], 8)
    assert finite.strange["x"].tolist() == [1, 2]


def test_the_seed_draws_what_is_held_out() -> None:
    assert split(np.arange(100), 0.1, 0).sha256() != split(np.arange(100), 0.1, 1).sha256()
    with pytest.raises(TooFewSamples, match="has 1 samples"):
        split(np.arange(1), 0.1, 0)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    batches = _batches(_feeds(103), 10)
    steps = batches.epoch(0)
    assert len(steps) == batches.steps == 11
    assert {len(step) for step in steps} == {9, 10}
    assert sorted(np.concatenate(steps)) == list(range(103))
    assert not np.array_equal(steps[0], batches.epoch(1)[0])
    assert np.array_equal(steps[0], batches.epoch(0)[0])


def test_a_batch_brings_feed_and_labels_of_its_samples() -> None:
    (batch,) = _batches(_feeds(20), 8).calls(np.array([7, 3]))
    assert torch.equal(batch.feed["x"], torch.tensor([[21.0, 22, 23], [9, 10, 11]]))
    assert batch.labels["y"].tolist() == [70, 30]
    assert batch.labels["y"].dtype == torch.int64


def test_a_fixed_batch_is_filled_up_and_cut_again() -> None:
    calls = list(_batches(_feeds(20, fixed=4), 6).calls(np.arange(6)))
    assert [len(call.feed["x"]) for call in calls] == [4, 4]
    assert [len(call.rows(call.feed["x"])) for call in calls] == [4, 2]


def test_whole_feeds_are_rows_of_one() -> None:
    calls = list(_batches(_feeds(5, whole=True), 3).calls(np.array([4, 0, 1])))
    assert [tuple(call.feed["x"].shape) for call in calls] == [(1, 3)] * 3
    assert tuple(calls[0].rows(torch.zeros(1, 4)).shape) == (1, 1, 4)


def test_no_more_than_a_batch_is_read_at_a_time(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(64, 3))
    read: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, key: object) -> np.ndarray:  # type: ignore[override]
            found = np.asarray(super().__getitem__(key))
            read.append(len(found))
            return found

    array = np.load(tmp_path / "x.npy", mmap_mode="r").view(Watched)
    batches = _batches(Feeds({"x": array}, {"x": "float32"}, frozenset(), 64), 16)
    for step in batches.epoch(0):
        for _ in batches.calls(step):
            pass
    assert read == [16] * 4
