"""Jobs that train, end to end: what the passes are given of the job, and what of their work it tells."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.passes.schooling import ROWS, answers, save, top1
from tests.worker.runner.optimizing import optimize
from worker.engine.model_file import ModelFile
from worker.runner.contract import EVENT_FD_VARIABLE

TRUTH = networks.normalized_perceptron()
SPOILT = networks.shaken(TRUTH, 0.7)
PLENTY = {"epochs": 8, "learning_rate": 0.01}


@pytest.fixture
def labels(tmp_path: Path) -> np.ndarray:
    """What the network was before it was spoilt says of the rows."""
    return np.asarray(answers(save(TRUTH, tmp_path / "truth"))["y"].argmax(axis=1))


def test_a_job_learns_from_its_labels_and_tells_of_every_epoch(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = os.open(tmp_path / "events", os.O_CREAT | os.O_WRONLY)
    monkeypatch.setenv(EVENT_FD_VARIABLE, str(told))
    data = {role: {**ROWS, "label": labels} for role in ("training", "evaluation")}
    # Time for eight epochs on a machine that does much else.
    result = optimize(tmp_path / "w", SPOILT, data, budget=40.0, recipe=[{"pass": "fine_tune", **PLENTY}])
    os.close(told)
    assert result.report is not None
    delivered = ModelFile(tmp_path / "w" / result.artifacts[0].path)
    # Of what the noise took of it, eight epochs win back more than half.
    lost = 1 - top1(save(SPOILT, tmp_path / "spoilt"), labels)
    assert 1 - top1(delivered, labels) < 0.5 * lost
    assert result.report.data["training"] == "dataset 'my training': 400 samples"
    assert "Training and evaluation use the same dataset: nothing was held out." in result.report.warnings
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    epochs = [event["message"] for event in events if event.get("message", "").startswith("fine_tune: Epoch ")]
    assert len(epochs) == 8
    assert all("training loss" in line and "held out: loss" in line for line in epochs)
    numbers = [event["epoch"] for event in events if event["type"] == "epoch"]
    assert [(one["number"], one["count"]) for one in numbers] == [(number, 8) for number in range(1, 9)]
    assert all(one["training"].keys() == {"loss", "hard"} and one["held_out_loss"] > 0 for one in numbers)
    assert all(one["metric"] == "top1" and 0 < one["value"] <= 1 for one in numbers)
    assert [event["phase"] for event in events if event["type"] == "phase"].index("training") > 0
    shares = [event["progress"] for event in events if event["type"] == "progress"]
    assert shares == sorted(shares)


@dataclass
class Case:
    id: str
    recipe: list[dict[str, Any]]
    improves: list[bool] = field(default_factory=lambda: [True])


CASES = [
    # Each step starts from the one before, and the teacher is the model as it was uploaded.
    Case(
        "pruned-then-distilled",
        [{"pass": "prune_unstructured", "sparsity": 0.6}, {"pass": "distill", **PLENTY}],
        [True, True],
    ),
    Case("pruned-while-trained", [{"pass": "prune_unstructured", "sparsity": 0.6, "training": PLENTY}]),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=[pytest.mark.long] if case.id == "pruned-while-trained" else [])
        for case in CASES
    ],
)
def test_without_labels_the_original_is_what_is_learned_from(case: Case, tmp_path: Path) -> None:
    original = save(TRUTH, tmp_path / "original")
    result = optimize(tmp_path / "w", TRUTH, {"training": ROWS, "evaluation": ROWS}, recipe=case.recipe)
    assert result.report is not None
    assert [step.modified for step in result.report.steps] == case.improves
    delivered = ModelFile(tmp_path / "w" / result.artifacts[0].path)
    once = optimize(
        tmp_path / "once", TRUTH, {"evaluation": ROWS}, recipe=[{"pass": "prune_unstructured", "sparsity": 0.6}]
    )
    untrained = ModelFile(tmp_path / "once" / once.artifacts[0].path)
    wanted = answers(original)["y"]
    errors = [float(np.mean((answers(model)["y"] - wanted) ** 2)) for model in (delivered, untrained)]
    assert errors[0] < errors[1]


def test_training_data_that_nothing_learns_from_is_said_to_be_so(tmp_path: Path) -> None:
    result = optimize(
        tmp_path / "w", TRUTH, {"training": ROWS, "evaluation": ROWS}, recipe=[{"pass": "optimize_graph"}]
    )
    assert result.report is not None
    assert "No pass of the recipe trains: nothing learned from dataset 'my training'." in result.report.warnings
