"""How arrays meet a model's inputs: what is accepted at submission is what the runner takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from app import errors
from app.config import Settings
from app.datasets.matching import ROUNDED, WITHOUT_LOSS
from tests.app.jobs.refusals import GRAPH, MODEL, check
from worker.engine import feeds
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import TensorFace

NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*NUMBERS, "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool")

Inputs = Mapping[str, tuple[str, list[Any] | None]]


@dataclass
class Case:
    """Inputs and arrays by name, each its dtype and its shape; what a refusal names, or how the calls are made."""

    id: str
    inputs: Inputs
    arrays: dict[str, tuple[str, list[int]]]
    refused: str | None = None
    whole: tuple[str, ...] = ()
    fixed_batch: int | None = None


IMAGE: Inputs = {"image": ("float32", ["N", 1, 8, 8])}
FOUR: Inputs = {"x": ("float32", [4, 3])}
STATE: Inputs = {"state": ("float32", [2, 1, 4])}
CASES = [
    Case("samples", IMAGE, {"image": ("float32", [100, 1, 8, 8])}),
    Case("whole-feeds", IMAGE, {"image": ("float32", [100, 1, 1, 8, 8])}, whole=("image",)),
    Case("whole-feeds-of-a-batch", IMAGE, {"image": ("float32", [100, 32, 1, 8, 8])}, whole=("image",)),
    Case("another-channel-count", IMAGE, {"image": ("float32", [100, 2, 8, 8])}, "float32 [100, 2, 8, 8]"),
    Case("another-channel-count-of-whole-feeds", IMAGE, {"image": ("float32", [100, 1, 2, 8, 8])}, "[100, 1, 2, 8, 8]"),
    Case("an-axis-too-few", IMAGE, {"image": ("float32", [100, 8, 8])}, "the input is float32 ['N', 1, 8, 8]"),
    Case("two-axes-too-many", IMAGE, {"image": ("float32", [100, 1, 1, 1, 8, 8])}, "[100, 1, 1, 1, 8, 8]"),
    Case("no-array", IMAGE, {"picture": ("float32", [100, 1, 8, 8])}, "for the input `image`"),
    Case("a-batch", FOUR, {"x": ("float32", [100, 3])}, fixed_batch=4),
    Case("a-batch-of-a-batch", FOUR, {"x": ("float32", [100, 4, 3])}, whole=("x",)),
    Case("scalars", {"flag": ("bool", [])}, {"flag": ("bool", [100])}, whole=("flag",)),
    Case("unknown-rank", {"x": ("float32", None)}, {"x": ("float32", [100, 3, 5])}),
    Case("unnamed-axes", {"x": ("float32", [None, None])}, {"x": ("float32", [100, 3])}),
    Case("rounded", IMAGE, {"image": ("float64", [100, 1, 8, 8])}),
    Case("without-loss", {"x": ("int64", ["N", 3])}, {"x": ("int32", [100, 3])}),
    Case("floats-for-integers", {"x": ("int64", ["N", 3])}, {"x": ("float64", [100, 3])}, "not every float64 is"),
    Case("text", {"name": ("string", ["N"])}, {"name": ("int64", [100])}, "datasets hold no text"),
    Case("text-without-an-array", {"name": ("string", ["N"])}, {"x": ("int64", [100])}, "datasets hold no text"),
    Case("truth-for-floats", {"x": ("float32", ["N", 3])}, {"x": ("bool", [100, 3])}, "not every bool is a float32"),
    Case(
        "different-batches",
        {"x": ("float32", [1, 3]), "y": ("float32", [2, 3])},
        {"x": ("float32", [100, 3]), "y": ("float32", [100, 3])},
        "`x` 1, `y` 2",
    ),
    Case(
        "a-first-axis-that-is-no-batch",
        {**STATE, "x": ("float32", [1, 3])},
        {"x": ("float32", [100, 3]), "state": ("float32", [100, 2, 1, 4])},
        whole=("state",),
    ),
    Case(
        "one-sample-a-call-beside-a-batch-of-four",
        {**FOUR, **STATE},
        {"x": ("float32", [100, 3]), "state": ("float32", [100, 2, 1, 4])},
        "`x` 4",
    ),
]


def submit(case: Case, settings: Settings) -> None:
    inputs = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in case.inputs.items()]
    arrays = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in case.arrays.items()]
    check(settings, {"recipe": GRAPH}, {"calibration": arrays}, MODEL | {"inputs": inputs})


def run(case: Case) -> Feeds:
    inputs = [
        TensorFace(name, dtype, None if shape is None else tuple(shape)) for name, (dtype, shape) in case.inputs.items()
    ]
    return match_arrays(inputs, {name: np.zeros(shape, dtype) for name, (dtype, shape) in case.arrays.items()}, "data")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_submission_and_runner_judge_alike(case: Case, settings: Settings) -> None:
    if case.refused is None:
        submit(case, settings)
        made = run(case)
        assert (made.whole, made.fixed_batch) == (frozenset(case.whole), case.fixed_batch)
        return
    with pytest.raises(errors.DataMismatch) as at_submission:
        submit(case, settings)
    with pytest.raises(feeds.DataMismatch) as in_the_runner:
        run(case)
    for refusal in (at_submission.value, in_the_runner.value):
        assert case.refused in refusal.detail
        assert refusal.remedy


def test_casts_without_loss_are_numpys() -> None:
    assert np.dtype("bfloat16") == ml_dtypes.bfloat16
    safe = {
        given: {wanted for wanted in DTYPES if wanted != given and np.can_cast(np.dtype(given), np.dtype(wanted))}
        for given in DTYPES
        if given != "bool"
    }
    assert {given: set(wanted) for given, wanted in WITHOUT_LOSS.items()} == {
        given: wanted for given, wanted in safe.items() if wanted
    }
    assert not any(wanted in safe[given] for given, wanted in ROUNDED)
