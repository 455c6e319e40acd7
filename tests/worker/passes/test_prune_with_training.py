"""Weights set to zero while the others are trained: as many zeros as asked for, and less is lost."""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.worker import networks
from tests.worker.dying import Kept, Killed
from tests.worker.passes.schooling import Job, answers, save, top1
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of

NETWORK = networks.normalized_perceptron()
TRAINING = {"epochs": 12, "batch_size": 32, "learning_rate": 0.03}
WEIGHTS = {"first.weight": 256, "head.weight": 128}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return save(NETWORK, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def labels(model: ModelFile) -> np.ndarray:
    return np.asarray(answers(model)["y"].argmax(axis=1))


def _values(model: ModelFile) -> dict[str, np.ndarray]:
    found = {name: numpy_helper.to_array(tensor) for name, tensor in constants_of(model.load().graph)}
    return {name: found[name] for name in WEIGHTS}


@dataclass
class Case:
    id: str
    rule: dict[str, Any]
    zeros: dict[str, int] = field(default_factory=dict)
    """By weight; none: of both together."""
    total: int = 0


CASES = [
    Case("of-every-layer", {"sparsity": 0.8}, {"first.weight": 205, "head.weight": 102}),
    Case("of-all-together", {"sparsity": 0.8, "scope": "global"}, total=307),
    Case("a-percentile", {"percentile": 75}, {"first.weight": 192, "head.weight": 96}),
    Case("two-of-eight", {"pattern": "2:8"}, {"first.weight": 192, "head.weight": 96}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_zeros_are_as_many_as_asked_for_and_cost_less(
    case: Case, model: ModelFile, labels: np.ndarray, tmp_path: Path
) -> None:
    once = Job(tmp_path / "once").run("prune_unstructured", model, **case.rule)
    job = Job(tmp_path / "run", labels={"label": labels})
    result = job.run("prune_unstructured", model, **case.rule, training=TRAINING)
    zeros = {name: int((values == 0).sum()) for name, values in _values(result.model).items()}
    assert zeros == case.zeros if case.zeros else sum(zeros.values()) == case.total
    assert {layer.weight: layer.sparsity for layer in result.layers} == {
        name: zeros[name] / size for name, size in WEIGHTS.items()
    }
    # Three quarters and more of so few weights cost four answers in ten; a third of them at least comes back.
    lost_once, lost = (1 - top1(one.model, labels) for one in (once, result))
    assert lost_once > 0.4
    assert lost < 0.67 * lost_once
    assert "training" in result.manifest
    assert any(note.startswith("Pruned and not trained the held-out samples") for note in result.notes)


def test_a_pattern_holds_after_training(model: ModelFile, tmp_path: Path) -> None:
    result = Job(tmp_path / "run").run("prune_unstructured", model, pattern="2:4", training=TRAINING)
    values = _values(result.model)
    groups = np.concatenate([values["first.weight"].T.reshape(-1, 4), values["head.weight"].reshape(-1, 4)])
    assert ((groups != 0).sum(axis=1) == 2).all()


def test_a_threshold_takes_what_was_below_it(model: ModelFile, tmp_path: Path) -> None:
    result = Job(tmp_path / "run").run("prune_unstructured", model, threshold=0.3, training=TRAINING)
    for name, before in _values(model).items():
        np.testing.assert_array_equal(_values(result.model)[name] == 0, np.abs(before) < 0.3)
    assert set(result.manifest["theta"].values()) == {0.3}


def test_labels_are_learned_from_where_there_are_any(model: ModelFile, labels: np.ndarray, tmp_path: Path) -> None:
    job = Job(tmp_path / "run", labels={"label": labels})
    result = job.run("prune_unstructured", model, sparsity=0.8, training=TRAINING)
    assert set(result.manifest["training"]["history"][0]["training"]) == {"soft", "hard", "loss"}
    assert result.manifest["training"]["history"][0]["held_out"]["metric"] == "top1"


def test_weights_that_are_frozen_are_pruned_all_the_same(model: ModelFile, tmp_path: Path) -> None:
    training = {**TRAINING, "freeze": ["head.weight"]}
    result = Job(tmp_path / "run").run("prune_unstructured", model, sparsity=0.5, training=training)
    before, after = _values(model)["head.weight"], _values(result.model)["head.weight"]
    assert (after == 0).sum() == 64
    np.testing.assert_array_equal(after[after != 0], before[after != 0])


@pytest.mark.parametrize("after", [1, 8], ids=["while-zeros-grow", "behind-that"])
@pytest.mark.parametrize(
    "frozen",
    [pytest.param([], marks=pytest.mark.long, id="all-trained"), pytest.param(["head.weight"], id="one-frozen")],
)
def test_a_run_that_was_killed_ends_with_the_same_bytes(
    frozen: list[str], after: int, model: ModelFile, tmp_path: Path
) -> None:
    arguments = {"sparsity": 0.8, "scope": "global", "training": {**TRAINING, "freeze": frozen}}
    whole = Job(tmp_path / "whole").run("prune_unstructured", model, **arguments)
    with pytest.raises(Killed):
        Job(tmp_path / "killed", checkpoints=Kept(tmp_path / "kept", after)).run(
            "prune_unstructured", model, **arguments
        )
    again = Job(tmp_path / "again", checkpoints=Kept(tmp_path / "kept"))
    result = again.run("prune_unstructured", model, **arguments)
    assert result.model.sha256() == whole.model.sha256()
    assert len(again.logs) == 12 - after


class Slow(Job):
    """Whatever comes before training takes all the time there is."""

    def phase(self, name: str) -> None:
        super().phase(name)
        if name == "training":
            time.sleep(max(0.0, self.deadline - time.monotonic()))


def test_without_time_to_train_the_weights_are_pruned_at_least(model: ModelFile, tmp_path: Path) -> None:
    once = Job(tmp_path / "once").run("prune_unstructured", model, sparsity=0.8)
    job = Slow(tmp_path / "run", deadline=time.monotonic() + 2)
    result = job.run("prune_unstructured", model, sparsity=0.8, training=TRAINING)
    assert result.model.sha256() == once.model.sha256()
    assert any(note.startswith("No time was left to train") for note in result.notes)


def test_training_that_ends_while_zeros_grow_is_not_said_to_have_been_judged(model: ModelFile, tmp_path: Path) -> None:
    once = Job(tmp_path / "once").run("prune_unstructured", model, sparsity=0.8)
    training = {**TRAINING, "stop_after": 2}
    result = Job(tmp_path / "run").run("prune_unstructured", model, sparsity=0.8, training=training)
    assert result.model.sha256() == once.model.sha256()
    assert any(note.startswith("Training ended before an epoch had been judged") for note in result.notes)
    assert not any("did not make" in note for note in result.notes)


def test_pruning_once_does_without_torch(tmp_path: Path) -> None:
    """ONNX Runtime's own tools load it where they find it; of Lathe's, no module that does is there."""
    script = (
        "import sys; from pathlib import Path; from tests.worker import networks;"
        "from tests.worker.passes import schooling;"
        "folder = Path(sys.argv[1]); model = schooling.save(networks.perceptron(), folder / 'model');"
        "print(schooling.Job(folder / 'run').run('prune_unstructured', model, sparsity=0.5).modified);"
        "print(*(name for name in sys.modules if name.startswith('worker.engine.train')))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
