"""A search that is cancelled, as a person meets it: what was found is fetched while it runs, and afterwards."""

import hashlib
import time
from pathlib import Path
from typing import Any

import httpx
import onnxruntime as ort
import pytest

from app.client import Lathe
from app.embedded import Stack
from tests.app.cli.conftest import LatheCommand

# What is delivered meanwhile, and what a search leaves, is tested at the worker in the short form too.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def searching(stack: Stack, files: dict[str, Path]) -> dict[str, Any]:
    """A search that has found something and goes on, given passes that make the file smaller on any machine."""
    with Lathe(stack.url, stack.key) as client:
        body = {
            "model_id": str(client.upload_model(files["model"]).id),
            "recipe": "auto",
            "objective": "size",
            "contract": {"max_drop": 0.5},
            "search": {"passes": ["quantize_weights", "quantize_static", "quantize_dynamic", "convert_float16"]},
            "data": {"evaluation": str(client.upload_dataset(files["evaluation"]).id)},
            "metric": {"name": "top1", "labels": "label"},
            "target": {"threads": 1},
            "budget_seconds": 600,
        }
        key = {"Authorization": f"Bearer {stack.key}"}
        job_id = httpx.post(f"{stack.url}/v1/jobs", json=body, headers=key).raise_for_status().json()["id"]
        deadline = time.monotonic() + 120
        while not client.job(job_id).artifacts:
            assert time.monotonic() < deadline, "nothing was found"
            time.sleep(0.05)
        return client.job(job_id).model_dump(mode="json")


def test_the_best_so_far_is_fetched_while_the_search_goes_on(
    lathe: LatheCommand, searching: dict[str, Any], tmp_path: Path
) -> None:
    saved = lathe("download", searching["id"], tmp_path, "--json")
    assert saved.code == 0, saved.stderr
    content = Path(saved.json["path"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == saved.json["sha256"]
    assert ort.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()
    early = lathe("report", searching["id"])
    assert early.code == 4
    assert "(report_not_ready)" in early.stderr
    assert searching["artifacts"][0]["trial"]["name"] in early.stdout
    assert lathe("promote", searching["id"], saved.json["path"].rpartition("/")[2]).code == 4


def test_what_was_found_outlives_the_cancel(lathe: LatheCommand, searching: dict[str, Any], tmp_path: Path) -> None:
    assert lathe("cancel", searching["id"]).code == 0
    watched = lathe("watch", searching["id"], "--download", tmp_path)
    assert watched.code == 1
    assert "candidate" in watched.stdout and "kept" in watched.stdout
    assert "The best that was found until then is kept" in watched.stderr
    (saved,) = tmp_path.iterdir()
    assert hashlib.sha256(saved.read_bytes()).hexdigest() in watched.stderr
    job = lathe("promote", searching["id"], saved.name, "--json").json
    assert job["promoted_artifact_id"] == job["artifacts"][0]["id"]
    reported = lathe("report", searching["id"])
    assert (reported.code, "(no_report)" in reported.stderr) == (4, True)
    assert job["artifacts"][0]["trial"]["name"] in reported.stdout
    assert "auto" in lathe("jobs").stdout
