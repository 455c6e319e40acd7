"""A worker that is killed while it trains: another one goes on, and nobody can tell from the file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.passes.schooling import Job, Kept, Killed, answers, save

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
