"""kill -9 of a worker that trains: the next attempt goes on from the last checkpoint and ends with the same bytes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from app.client import Dataset, Job, Lathe, Model
from app.client.conversion import write_npz
from tests.faults.service import PATIENCE_SECONDS, Service
from tests.worker import networks

# Epochs of half a second and more: what a runner tells is written down twice a second.
SAMPLES, EPOCHS = 6_000, 5
RECIPE = [{"pass": "fine_tune", "epochs": EPOCHS, "batch_size": 16, "patience": None}]
# By latencies, which no two attempts measure alike.
MEASURED = [{"pass": "prune_structured", "target": {"latency_ratio": 0.8}}, *RECIPE]


def _epochs(lathe: Lathe, job: Job) -> list[str]:
    """What the job told of its epochs, in the order in which it did: `1 of 5`."""
    messages = [str(event.data.get("message", "")) for event in lathe.recorded_events(job)]
    return [message.split("Epoch ")[1].split(":")[0] for message in messages if "Epoch " in message]


def _upload(lathe: Lathe, folder: Path) -> tuple[Model, dict[str, Dataset]]:
    (folder / "model.onnx").write_bytes(networks.normalized_perceptron().SerializeToString())
    rows = networks.normal(SAMPLES, 8)
    labels = (rows[:, :4] + networks.normal(SAMPLES, 4, seed=1)).argmax(axis=1).astype(np.int64)
    write_npz(folder / "data.npz", {"x": rows, "label": labels})
    uploaded = lathe.upload_model(folder / "model.onnx", name="net")
    return uploaded, {"training": lathe.upload_dataset(folder / "data.npz", name="rows")}


def _killed_and_resumed(service: Service, lathe: Lathe, job: Job) -> Job:
    """Killed in its third epoch; nothing is learned twice but what comes behind the last checkpoint."""
    service.wait(lambda: "2 of 5" in _epochs(lathe, job))
    os.killpg(os.getpgid(service.stack.pid("worker")), signal.SIGKILL)
    resumed = lathe.wait(job, timeout_seconds=PATIENCE_SECONDS)
    assert resumed.succeeded, resumed.error
    assert resumed.attempt == 2
    assert _epochs(lathe, job).count("1 of 5") == 1
    return resumed


@pytest.mark.long
def test_training_goes_on_from_its_checkpoint_and_ends_with_the_same_file(service: Service, tmp_path: Path) -> None:
    with Lathe(service.stack.url, service.stack.key) as lathe:
        uploaded, data = _upload(lathe, tmp_path)
        whole = lathe.wait(lathe.optimize(uploaded, RECIPE, data=data, budget_seconds=120))
        assert whole.succeeded, whole.error
        job = lathe.optimize(uploaded, RECIPE, data=data, budget_seconds=120)
        assert _killed_and_resumed(service, lathe, job).delivered().sha256 == whole.delivered().sha256
    service.assert_nothing_left_over()


@pytest.mark.long
def test_it_goes_on_behind_a_cut_that_was_chosen_by_measuring(service: Service, tmp_path: Path) -> None:
    with Lathe(service.stack.url, service.stack.key) as lathe:
        uploaded, data = _upload(lathe, tmp_path)
        _killed_and_resumed(service, lathe, lathe.optimize(uploaded, MEASURED, data=data, budget_seconds=120))
    service.assert_nothing_left_over()
