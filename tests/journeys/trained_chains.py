"""One journey: a model and data go up, a chain of passes that train comes back as a file that runs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.client import Lathe
from app.client.conversion import write_npz
from tests.worker.engine.trainable.exported import NETWORKS, Network

SAMPLES, BATCH = 128, 32
# What the tiny networks compute is arbitrary, their weights are drawn. With a third of the weights gone, distilled for
# a few steps and in 8 bits, noise may have a third of the signal's power.
LEAST_SQNR_DB = 5.0
PRUNED: dict[str, Any] = {"pass": "prune_structured", "ratio": 0.3}
# An LSTM stays whole as the old exporter writes it here, told to fold no constants: it slices weights in the graph.
PRUNED_WEIGHTS: dict[str, Any] = {"pass": "prune_unstructured", "sparsity": 0.3}
DISTILLED: dict[str, Any] = {"pass": "distill", "epochs": 3, "batch_size": BATCH}
QUANTIZED: dict[str, Any] = {"pass": "quantize_aware_training", "epochs": 1, "batch_size": BATCH}


def some_of_them(*names: str) -> list[Any]:
    """Every kind of network; those that are not named here travel in the long form alone."""
    return [
        pytest.param(network, id=network.name, marks=[] if network.name in names else [pytest.mark.long])
        for network in NETWORKS
    ]


def travel(network: Network, exporter: str, lathe: Lathe, folder: Path) -> None:
    """Through the API alone, as a user would."""
    file = network.export(folder / "float", exporter)
    feed = {name: tensor.numpy() for name, tensor in network.feed(SAMPLES).items()}
    write_npz(folder / "data.npz", feed)
    model = lathe.wait_until_ready(lathe.upload_model(file.path, name=f"{network.name}-{exporter}"))
    data = lathe.upload_dataset(folder / "data.npz", name=network.name)
    assert (model.trainable, model.training_blockers) == (True, [])

    recipe = [PRUNED_WEIGHTS if (network.name, exporter) == ("lstm", "old") else PRUNED, DISTILLED, QUANTIZED]
    job = lathe.optimize(model, recipe, data={"calibration": data, "training": data}, budget_seconds=120)
    job = lathe.wait(job)
    assert job.succeeded, job.error
    report = lathe.report(job)
    assert [step.pass_ for step in report.steps] == [step["pass"] for step in recipe]
    # Distilling may find nothing better than what it was given.
    assert (report.steps[0].modified, report.steps[2].modified) == (True, True)

    delivered = lathe.download(job.delivered(), folder / "optimized.onnx")
    kinds = {node.op_type for node in onnx.load(delivered).graph.node}
    assert kinds & {"QuantizeLinear", "DequantizeLinear", "MatMulIntegerToFloat"}
    (before,), (after,) = (ort.InferenceSession(str(path)).run(None, feed) for path in (file.path, delivered))
    noise = float(np.square(before - after).sum()) / float(np.square(before).sum())
    assert -10 * np.log10(noise) > LEAST_SQNR_DB
