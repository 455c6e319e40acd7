"""The manifest says where a result comes from."""

import platform
from importlib import metadata
from typing import Any
from uuid import uuid4

import pytest

from app.jobs.states import JobKind
from app.recipes.request import Metric, OptimizeRequest
from worker.engine.processor import processor_name
from worker.runner.contract import RunnerJob
from worker.runner.manifest import Account, build_manifest


def _manifest(device: str) -> dict[str, Any]:
    request = OptimizeRequest.model_validate(
        {"model_id": uuid4(), "recipe": [{"pass": "optimize_graph"}], "target": {"device": device}}
    )
    job = RunnerJob(kind=JobKind.OPTIMIZE, request=request, threads=1, budget_seconds=1, memory_bytes=1)
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
    assert {name: versions[name] for name in ("onnx", "onnxruntime", "numpy")} == {
        name: metadata.version(name) for name in ("onnx", "onnxruntime", "numpy")
    }
    assert "unknown" not in versions.values()
