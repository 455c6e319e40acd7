"""Requests and data that a search may be given by somebody who means it no good, or did not think."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.jobs.states import JobKind
from app.recipes.request import OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from tests.worker.runner.optimizing import input_file, optimize
from worker.engine.model_file import ModelFile
from worker.runner.contract import RunnerJob
from worker.runner.search.data import load_search_data

NONSENSE: list[dict[str, Any]] = [
    {"pass": "prune_structured", "given": [{"block": "../../etc/passwd"}]},
    {"pass": "prune_structured", "given": [{"group": "\x00n", "units": [2**31]}]},
    {"pass": "factorize_low_rank", "given": [{"node": "/n" * 200, "form": "tucker", "ranks": [4096, 4096]}]},
    {"pass": "quantize_static", "exclude": ["../x", "%s", ""]},
    {"pass": "fine_tune", "epochs": 1000, "freeze": ["training"]},
    {"pass": "quantize_dynamic", "exclude": ["q" * 200]},
]


@pytest.mark.long
# The alarm that ends a candidate may ring where nothing can be raised, in a callback of the collector, or between the
# opening of a file and its `with`: the first rings again, the other is closed all the same.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
# Measured as every search is; most of it is one second a file.
def test_as_many_recipes_of_nonsense_as_there_may_be_end_in_reasons(tmp_path: Path) -> None:
    given = [[NONSENSE[number % len(NONSENSE)]] for number in range(64)]
    samples = {"x": networks.normal(48, 8)}
    result = optimize(
        tmp_path, networks.perceptron(), {"evaluation": samples}, 8.0, recipe="auto", search={"given": given}
    )
    assert result.report is not None, result.fault
    assert result.report.search is not None
    trials = result.report.search.trials
    assert len(trials) == 64
    assert all(one.explanation for one in trials)
    assert not any("on our side" in one.explanation for one in trials)
    json.loads(result.model_dump_json())


def test_a_dataset_that_was_uploaded_twice_is_divided_all_the_same(tmp_path: Path) -> None:
    """By the hash of its bytes: else what calibrates would be what accepts."""
    arrays = {"x": np.arange(800, dtype=np.float32).reshape(100, 8)}
    datasets = {}
    for role in ("calibration", "evaluation", "training"):
        np.savez(tmp_path / f"{role}.npz", allow_pickle=False, **arrays)
        datasets[role] = input_file(tmp_path / f"{role}.npz", f"my {role}", "application/x-npz")
    assert len({one.sha256 for one in datasets.values()}) == 1
    path = networks.save(networks.perceptron(), tmp_path / "model")
    data = {role: str(uuid.uuid4()) for role in datasets}
    request = OptimizeRequest.model_validate(
        {"model_id": str(uuid.uuid4()), "recipe": "auto", "data": data, "search": {"training": True}}
    )
    job = RunnerJob(
        kind=JobKind.OPTIMIZE,
        model=input_file(path, "my model", "application/octet-stream"),
        datasets=datasets,
        request=request,
        threads=1,
        timing_rounds=TIMING_ROUNDS,
        round_seconds=ROUND_SECONDS,
        budget_seconds=60,
        memory_bytes=4 << 30,
    )
    loaded = load_search_data(job, request, ModelFile(path), tmp_path, tmp_path / "scratch")
    training = loaded.accepting.training
    assert training is not None
    assert np.array_equal(arrays["x"][training.places], training.feeds.arrays["x"])
    feeds = [loaded.accepting.calibration, loaded.accepting.evaluation, loaded.selecting.evaluation]
    feeds.append(training.feeds)
    seen = [hashlib.sha256(row.tobytes()).digest() for one in feeds for row in one.arrays["x"]]
    assert len(seen) == len(set(seen)) == 100
