"""A worker that is killed while it trains: another one goes on, and nobody can tell from the file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.dying import Kept, Killed
from tests.worker.passes.schooling import Job, answers, save
from worker.engine.pass_contract import Checkpoints, NoCheckpoints, PassResult

# BatchNorm moves its statistics and Dropout draws: both have to go on where they stood.
TRUTH = networks.normalized_perceptron()
SPOILT = networks.shaken(TRUTH, 0.7)


@dataclass
class Case:
    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    labelled: bool = True


CASES = [
    Case("fine-tune", "fine_tune"),
    Case("fine-tune-by-sgd", "fine_tune", {"optimizer": "sgd", "averaging": None}),
    Case("distill-with-features", "distill", {"beta": 1.0}, labelled=False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_run_that_was_killed_ends_with_the_same_bytes(case: Case, tmp_path: Path) -> None:
    truth, model = save(TRUTH, tmp_path / "truth"), save(SPOILT, tmp_path / "model")
    labels = {"label": np.asarray(answers(truth)["y"].argmax(axis=1))} if case.labelled else {}
    arguments = {"epochs": 5, "learning_rate": 0.01, **case.arguments}

    def job(folder: str, **more: Any) -> Job:
        return Job(tmp_path / folder, labels=labels, original=truth, **more)

    whole = job("whole").run(case.name, model, **arguments)
    with pytest.raises(Killed):
        job("killed", checkpoints=Kept(tmp_path / "kept", after=3)).run(case.name, model, **arguments)
    again = job("again", checkpoints=Kept(tmp_path / "kept"))
    result = again.run(case.name, model, **arguments)
    assert result.model.sha256() == whole.model.sha256()
    assert result.manifest == whole.manifest
    assert "An earlier attempt had done 3 epochs: training went on from there." in result.notes
    assert len(again.logs) == 2


@dataclass
class Change:
    id: str
    name: str
    before: dict[str, Any]
    after: dict[str, Any]
    """What the run that is killed is given, and the other: arguments, labels, a teacher."""
    arguments: dict[str, Any]
    """Of both."""


LEARNED = {"epochs": 3, "learning_rate": 0.01}
CHANGES = [
    Change("labels", "fine_tune", {"labels": 0}, {"labels": 1}, LEARNED),
    Change("teacher", "distill", {"teacher": TRUTH}, {"teacher": networks.shaken(TRUTH, 0.2)}, LEARNED),
    Change("rule", "prune_unstructured", {"sparsity": 0.5}, {"sparsity": 0.8}, {"training": LEARNED}),
    Change(
        "scope", "prune_unstructured", {"scope": "layer"}, {"scope": "global"}, {"training": LEARNED, "sparsity": 0.5}
    ),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.id)
def test_another_training_of_the_same_model_does_not_take_its_checkpoint(change: Change, tmp_path: Path) -> None:
    model = save(SPOILT, tmp_path / "model")
    classes = answers(save(TRUTH, tmp_path / "truth"))["y"].argmax(axis=1)

    def run(folder: str, asked: dict[str, Any], checkpoints: Checkpoints) -> PassResult:
        given = dict(asked)
        labels = {"label": np.asarray((classes + given.pop("labels")) % 4)} if "labels" in given else {}
        teacher = save(given.pop("teacher"), tmp_path / folder / "teacher") if "teacher" in given else model
        job = Job(tmp_path / folder / "run", labels=labels, original=teacher, checkpoints=checkpoints)
        return job.run(change.name, model, **given, **change.arguments)

    whole = run("whole", change.after, NoCheckpoints())
    with pytest.raises(Killed):
        run("killed", change.before, Kept(tmp_path / "kept", after=2))
    other = run("other", change.after, Kept(tmp_path / "kept"))
    assert other.model.sha256() == whole.model.sha256()
    assert other.manifest == whole.manifest
    assert not any("earlier attempt" in note for note in other.notes)
