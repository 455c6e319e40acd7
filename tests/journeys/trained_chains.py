"""One journey: a model that knows digits goes up with data, and comes back from a chain of passes that train."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.client import Lathe
from app.client.conversion import write_npz
from examples.digits import data
from tests.journeys.taught import Lesson, lesson_of, teach
from tests.worker.engine.trainable.exported import NETWORKS, Network
from worker.engine.evaluation.metrics import classes

BATCH = 32
# So much of a task each network learns in its seconds, and so much of it may be gone with a quarter of its units: some
# of the samples that judge, of which there are 600 (of three digits 180).
LEAST_KNOWN, MOST_LOST = 0.8, 0.06
PRUNED: dict[str, Any] = {"pass": "prune_structured", "ratio": 0.25}
# An LSTM stays whole as the old exporter writes it here, told to fold no constants: it slices weights in the graph.
PRUNED_WEIGHTS: dict[str, Any] = {"pass": "prune_unstructured", "sparsity": 0.3}
DISTILLED: dict[str, Any] = {"pass": "distill", "epochs": 4, "batch_size": BATCH}
# Whether int8 pays on this machine is not the question: networks of this size take some microseconds.
QUANTIZED: dict[str, Any] = {
    "pass": "quantize_aware_training",
    "epochs": 1,
    "batch_size": BATCH,
    "placement": "kernels",
}


def some_of_them(*names: str) -> list[Any]:
    """Every kind of network; those that are not named here travel in the long form alone."""
    return [
        pytest.param(network, id=network.name, marks=[] if network.name in names else [pytest.mark.long])
        for network in NETWORKS
    ]


def travel(network: Network, exporter: str, lathe: Lathe, folder: Path) -> None:
    """Through the API alone, as a user would."""
    digits = data.load()
    parts = {"training": digits.training, "calibration": digits.calibration, "evaluation": digits.evaluation}
    lessons = {role: lesson_of(network, part) for role, part in parts.items()}
    file = network.export(folder / "float", exporter, module=teach(network, lessons["training"]))
    model = lathe.wait_until_ready(lathe.upload_model(file.path, name=f"{network.name}-{exporter}"))
    assert (model.trainable, model.training_blockers) == (True, [])
    datasets = {}
    for role, lesson in lessons.items():
        write_npz(folder / f"{role}.npz", {**lesson.feed, "label": lesson.labels})
        datasets[role] = lathe.upload_dataset(folder / f"{role}.npz", name=f"{network.name}-{role}")

    recipe = [PRUNED_WEIGHTS if (network.name, exporter) == ("lstm", "old") else PRUNED, DISTILLED, QUANTIZED]
    job = lathe.wait(lathe.optimize(model, recipe, data=datasets, metric="top1", budget_seconds=240))
    assert job.succeeded, job.error
    report = lathe.report(job)
    assert [step.pass_ for step in report.steps] == [step["pass"] for step in recipe]
    # Distilling may find nothing better than what it was given.
    assert (report.steps[0].modified, report.steps[2].modified) == (True, True)

    delivered = lathe.download(job.delivered(), folder / "optimized.onnx")
    kinds = {node.op_type for node in onnx.load(delivered).graph.node}
    assert kinds & {"QuantizeLinear", "DequantizeLinear", "MatMulIntegerToFloat"}
    before, after = (top1(path, lessons["evaluation"]) for path in (file.path, delivered))
    assert before > LEAST_KNOWN
    assert after > before - MOST_LOST
    assert job.summary is not None
    told = job.summary.baseline.metric, job.summary.optimized.metric
    assert told == pytest.approx((before, after), abs=0.005)


def top1(model: Path, lesson: Lesson) -> float:
    (scores,) = ort.InferenceSession(str(model)).run(None, lesson.feed)
    return float((classes(np.asarray(scores), lesson.labels) == lesson.labels).mean())
