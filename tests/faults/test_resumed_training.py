"""kill -9 of a worker that trains: the next attempt goes on from the last checkpoint and ends with the same bytes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from app.client import Job, Lathe
from app.client.conversion import write_npz
from tests.faults.service import PATIENCE_SECONDS, Service
from tests.worker import networks

# Epochs of half a second and more: what a runner tells is written down twice a second.
SAMPLES, EPOCHS = 6_000, 5
RECIPE = [{"pass": "fine_tune", "epochs": EPOCHS, "batch_size": 16, "patience": None}]


def _epochs(lathe: Lathe, job: Job) -> list[str]:
    """What the job told of its epochs, in the order in which it did: `1 of 5`."""
    messages = [str(event.data.get("message", "")) for event in lathe.recorded_events(job)]
    return [message.split("Epoch ")[1].split(":")[0] for message in messages if "Epoch " in message]


@pytest.mark.long
@pytest.mark.slow
def test_training_goes_on_from_its_checkpoint_and_ends_with_the_same_file(service: Service, tmp_path: Path) -> None:
    model = networks.normalized_perceptron()
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    rows = networks.normal(SAMPLES, 8)
    labels = (rows[:, :4] + networks.normal(SAMPLES, 4, seed=1)).argmax(axis=1).astype(np.int64)
    write_npz(tmp_path / "data.npz", {"x": rows, "label": labels})
    with Lathe(service.stack.url, service.stack.key) as lathe:
        uploaded = lathe.upload_model(tmp_path / "model.onnx", name="net")
        data = {"training": lathe.upload_dataset(tmp_path / "data.npz", name="rows")}
        whole = lathe.wait(lathe.optimize(uploaded, RECIPE, data=data, budget_seconds=120))
        assert whole.succeeded, whole.error

        job = lathe.optimize(uploaded, RECIPE, data=data, budget_seconds=120)
        service.wait(lambda: "2 of 5" in _epochs(lathe, job))
        os.killpg(os.getpgid(service.stack.pid("worker")), signal.SIGKILL)
        resumed = lathe.wait(job, timeout_seconds=PATIENCE_SECONDS)
        assert resumed.succeeded, resumed.error
        assert resumed.attempt == 2
        # Nothing was learned twice but what came behind the last checkpoint.
        assert _epochs(lathe, job).count("1 of 5") == 1
        assert resumed.delivered().sha256 == whole.delivered().sha256
    service.assert_nothing_left_over()
