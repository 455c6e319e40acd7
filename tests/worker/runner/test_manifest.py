"""The manifest says where a result comes from."""

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from app.jobs.states import JobKind
from app.recipes.request import Metric, OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from tests.worker.runner.optimizing import optimize
from worker.engine.processor import processor_name
from worker.engine.versions import source_digest
from worker.runner.artifacts import file_sha256
from worker.runner.contract import OUTPUT_FOLDER, RunnerJob
from worker.runner.manifest import Account, build_manifest

# What writes the bytes of a result, or solves for them.
WRITERS = {"onnx", "onnx-ir", "onnxruntime", "numpy", "scipy"}


def _manifest(device: str) -> dict[str, Any]:
    request = OptimizeRequest.model_validate(
        {"model_id": uuid4(), "recipe": [{"pass": "optimize_graph"}], "target": {"device": device}}
    )
    job = RunnerJob(
        kind=JobKind.OPTIMIZE,
        request=request,
        threads=1,
        timing_rounds=TIMING_ROUNDS,
        round_seconds=ROUND_SECONDS,
        budget_seconds=1,
        memory_bytes=1,
    )
    medians = {"original": [1.0, 1.0], "optimized": [1.0, 1.0]}
    return build_manifest(job, request, Account(Metric(name="cosine", output="y"), [], [], medians, {}, []))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_processor_named_is_the_one_measured_on(device: Any) -> None:
    """Without a GPU the name of one is a plain `GPU`; it is never that of the CPU beside it."""
    assert processor_name("cpu") != processor_name("cuda")
    assert _manifest(device)["processor"]["name"] == processor_name(device)


def test_what_is_installed_is_named_with_its_version() -> None:
    versions = _manifest("cpu")["versions"]
    assert versions["python"] == platform.python_version()
    assert {name: versions[name] for name in WRITERS} == {name: metadata.version(name) for name in WRITERS}
    assert "unknown" not in versions.values()


def test_it_holds_what_another_run_needs(tmp_path: Path) -> None:
    """Of a job that ran: the bytes that went in, what was drawn and in which order, and all that had a say."""
    generator = np.random.default_rng(0)
    roles = {role: {"image": generator.random((6, 3, 16, 16), np.float32)} for role in ("calibration", "evaluation")}
    workdir = tmp_path / "w"
    result = optimize(workdir, networks.convnet(), roles, budget=300, recipe=[{"pass": "quantize_static"}], seed=7)
    manifest = json.loads((workdir / OUTPUT_FOLDER / "manifest.json").read_text())
    assert result.report is not None
    assert manifest == result.report.manifest
    assert manifest["model"]["sha256"] == file_sha256(workdir / "upload")
    assert {role: one["sha256"] for role, one in manifest["datasets"].items()} == {
        role: file_sha256(workdir / f"{role}.npz") for role in roles
    }
    assert manifest["seed"] == 7
    assert "order of the dataset" in manifest["passes"][0]["calibration_order"]
    assert manifest["versions"].keys() >= WRITERS | {"lathe", "python"}
    assert manifest["source_sha256"] == source_digest()
