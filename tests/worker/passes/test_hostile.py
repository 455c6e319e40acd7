"""Passes that train, cut or factor: hostile models, labels and few samples end in a fault of the user's or a result."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.worker.passes.schooling import Job, save
from tests.worker.runner.hostile.programs import PROGRAMS, plain
from worker.engine.faults import UserFault

BRIEF = {"epochs": 1, "batch_size": 8}
ARGUMENTS = {
    "prune_structured": {"ratio": 0.25},
    "factorize_low_rank": {"objective": "size", "fidelity_floor_db": 3.0},
    "distill": BRIEF,
    "fine_tune": BRIEF,
    "quantize_aware_training": {**BRIEF, "placement": "kernels"},
    "prune_unstructured": {"sparsity": 0.5, "training": BRIEF},
}
# One child for all passes and models, for a crash of the libraries would end pytest, and with the limit of a runner:
# memory that is not there has to be refused, not taken. What it prints last tells the model that ended it.
CHILD = """
import itertools, json, os, resource, sys
from pathlib import Path
import numpy as np
from onnx import helper
import onnxruntime as ort
from tests.worker import networks
from tests.worker.passes.schooling import Job, save
from tests.worker.runner.hostile.programs import PROGRAMS
from worker.engine.faults import UserFault

arguments, root = json.loads(sys.argv[1]), Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
for name, (number, (program, build)) in itertools.product(arguments, enumerate(PROGRAMS.items())):
    folder = root / name
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    (given,) = build().graph.input
    model = save(build(), folder / f"model-{number}")
    job = Job(folder / f"work-{number}", {given.name: networks.normal(24, 8)}, {"label": np.arange(24) % 4})
    try:
        made = job.run(name, model, **arguments[name])
        ort.InferenceSession(made.model.path, providers=["CPUExecutionProvider"])
        outcome = "changed" if made.modified else "as it was"
        faces = [[value.name for value in one.structure().graph.output] for one in (model, made.model)]
        assert faces[0] == faces[1], faces
    except UserFault as error:
        fault = error.fault()
        assert fault.detail
        outcome = fault.code
    print(json.dumps([name, program, outcome]), flush=True)
"""


@dataclass
class Sitting:
    """What came of every pass on every model: outcomes by pass and model, and what lies in the folder of each pass."""

    outcomes: dict[str, dict[str, str]]
    folder: Path
    status: int | None
    """None where it did not end in its time."""
    errors: str


PASSES = [
    *("prune_structured", "factorize_low_rank", "fine_tune", "prune_unstructured"),
    *(pytest.param(name, marks=pytest.mark.long) for name in ("distill", "quantize_aware_training")),
]


@pytest.fixture(scope="module")
def sitting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sitting:
    folder = tmp_path_factory.mktemp("hostile")
    looked_at = " ".join(item.name for item in request.session.items if item.path == Path(__file__))
    arguments = {name: given for name, given in ARGUMENTS.items() if f"[{name}]" in looked_at} or ARGUMENTS
    command = [sys.executable, "-c", CHILD, json.dumps(arguments), str(folder)]
    with (folder / "told").open("w+b") as told, (folder / "errors").open("w+b") as errors:
        child = subprocess.Popen(command, stdout=told, stderr=errors)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=170)
        status = child.poll()
        child.kill()
        child.wait()
    outcomes: dict[str, dict[str, str]] = {name: {} for name in arguments}
    for name, program, outcome in map(json.loads, (folder / "told").read_text().splitlines()):
        outcomes[name][program] = outcome
    return Sitting(outcomes, folder, status, (folder / "errors").read_text()[-4000:])


def test_hostile_models_end_nobody_who_opens_them(sitting: Sitting) -> None:
    assert sitting.status == 0, sitting.errors


@pytest.mark.parametrize("name", PASSES)
def test_hostile_models_end_in_a_clear_fault_or_a_result(name: str, sitting: Sitting) -> None:
    outcomes = sitting.outcomes[name]
    assert list(outcomes) == list(PROGRAMS), sitting.errors
    # Nothing lies beside the folders that the pass was given.
    numbers = range(len(PROGRAMS))
    found = {path.name for path in (sitting.folder / name).iterdir()}
    assert found == {f"{kind}-{n}" for kind in ("model", "work") for n in numbers}
    # Neither side may swallow the other.
    assert {"changed", "as it was"} & {*outcomes.values()}
    assert outcomes["index-out-of-range"] == "model_fails"


LABELS = {
    "out-of-range": np.full(24, 99),
    "below-zero": np.full(24, -5),
    "none-known": np.full(24, -1),
    "largest": np.full(24, 2**63 - 1),
    "smallest": np.full(24, -(2**63)),
    "unsigned": np.full(24, 2**64 - 1, np.uint64),
    "nan": np.full((24, 4), np.nan, np.float32),
    "infinite": np.full((24, 4), np.inf, np.float32),
    "overflowing": np.full((24, 4), 1e300),
    "of-another-shape": np.zeros((24, 7), np.int64),
    "a-sequence": np.zeros((24, 4), np.int64),
    "without-elements": np.zeros((24, 0), np.int64),
    "truth-values": np.zeros(24, bool),
    "of-four-axes": np.zeros((24, 1, 1, 1), np.int64),
}


@pytest.mark.parametrize("asked", [True, False], ids=["named", "found"])
@pytest.mark.parametrize("name", LABELS)
def test_hostile_labels_end_in_a_clear_fault_or_a_result(name: str, asked: bool, tmp_path: Path) -> None:
    model = save(plain(), tmp_path / "model")
    arrays = {"x": np.random.default_rng(0).standard_normal((24, 8), np.float32)}
    named = {"labels": {"y": "label"}} if asked else {}
    try:
        made = Job(tmp_path / "work", arrays, {"label": LABELS[name]}).run("fine_tune", model, **BRIEF, **named)
    except UserFault as error:
        assert error.fault().remedy
    else:
        weights = made.model.load().graph.initializer
        assert all(np.isfinite(np.frombuffer(one.raw_data, np.float32)).all() for one in weights)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_handful_of_samples_end_in_a_clear_fault_or_a_result(name: str, count: int, tmp_path: Path) -> None:
    model = save(plain(), tmp_path / "model")
    arrays = {"x": np.random.default_rng(0).standard_normal((count, 8), np.float32)}
    job = Job(tmp_path / "work", arrays, {"label": np.arange(count)})
    try:
        assert job.run(name, model, **ARGUMENTS[name]).notes
    except UserFault as error:
        assert (error.fault().code, count) == ("too_few_samples", 1)
