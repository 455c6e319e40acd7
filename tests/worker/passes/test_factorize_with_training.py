"""Factors that are trained on: less is lost than by fitting them layer by layer, and torch is needed only then."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.passes.schooling import Job, answers, save
from worker.engine.model_file import ModelFile

RULE = {"objective": "size", "ratio": 0.5, "fidelity_floor_db": -100}
TRAINING = {"epochs": 8, "batch_size": 32, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return save(networks.normalized_perceptron(), tmp_path_factory.mktemp("model"))


def _noise(model: ModelFile, made: ModelFile) -> float:
    return float(np.sum((answers(model)["y"] - answers(made)["y"]) ** 2))


def test_training_takes_back_what_factoring_lost(model: ModelFile, tmp_path: Path) -> None:
    fitted = Job(tmp_path / "fitted").run("factorize_low_rank", model, **RULE)
    trained = Job(tmp_path / "trained").run("factorize_low_rank", model, **RULE, training=TRAINING)
    assert fitted.modified
    assert trained.modified
    assert [layer.factors for layer in trained.layers] == [layer.factors for layer in fitted.layers]
    # Both start from the same factors; a tenth of the noise less is more than eight epochs move by chance.
    assert _noise(model, trained.model) < 0.9 * _noise(model, fitted.model)
    assert any("epochs" in note for note in trained.notes)


def test_a_replay_trains_to_the_same_bytes(model: ModelFile, tmp_path: Path) -> None:
    options = {**TRAINING, "epochs": 2}
    first = Job(tmp_path / "first").run("factorize_low_rank", model, **RULE, training=options)
    replay = {name: value for name, value in first.manifest["replay"].items() if name != "pass"}
    assert Job(tmp_path / "second").run("factorize_low_rank", model, **replay).model.sha256() == first.model.sha256()


def test_factoring_without_training_does_without_torch(tmp_path: Path) -> None:
    """ONNX Runtime's own tools load it where they find it; of Lathe's, no module that does is there."""
    script = (
        "import sys; from pathlib import Path; from tests.worker import networks;"
        "from tests.worker.passes import schooling;"
        "folder = Path(sys.argv[1]); model = schooling.save(networks.perceptron(), folder / 'model');"
        "rule = {'objective': 'size', 'fidelity_floor_db': -100};"
        "print(schooling.Job(folder / 'run').run('factorize_low_rank', model, **rule).modified);"
        "print(*(name for name in sys.modules if name.startswith('worker.engine.train')))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
