"""What the runtime writes where there is no room: a shortage of the worker's, and no fault of the model."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker import networks

WRITE = """
import sys
from pathlib import Path
from worker.engine.model_file import ModelFile
from worker.engine.optimized import write_optimized
from worker.engine.sessions import BASIC
try:
    write_optimized(ModelFile(Path(sys.argv[1])), Path(sys.argv[2]), 1, BASIC)
except OSError as error:
    print(error.errno)
"""
# What is asked takes one page of the two, and a file the other: there is none for the answer.
MEASURE = """
import sys
from pathlib import Path
from tests.worker.engine.evaluation.test_probes import feeds_of, one_call
from worker.engine.evaluation.child import Bounds, run_probe
from worker.engine.evaluation.one_call import Footprint
from worker.engine.evaluation.requests import KernelReport, Turns, TurnsAnswer
from worker.engine.model_file import ModelFile
from worker.engine.stored_arrays import ArrayStore
model, written = ModelFile(Path(sys.argv[1])), Path(sys.argv[2]).parent
elsewhere = model.path.parent
written.mkdir()
(written / "other").write_bytes(b"x" * 4096)
feed = feeds_of(model).describe(ArrayStore(elsewhere / "store"))
turns = Turns(models=[str(model.path)], feeds=[feed], threads=1, seconds=0.1, rounds=3, round_seconds=0.05)
calls = {"footprint": (one_call(model, elsewhere), Footprint), "latency": (turns, TurnsAnswer)}
calls["kernels"] = one_call(model, elsewhere).model_copy(update={"folder": str(written)}), KernelReport
asked = calls[sys.argv[3]]
try:
    run_probe(sys.argv[3], *asked, Bounds(written, 60))
except OSError as error:
    print(error.errno)
"""
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=8k tmpfs "$1" && exec "$2" -c "$3" "$4" "$1/made/model$5" $6'


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_a_full_disk_is_told_from_a_model_that_the_runtime_refuses(suffix: str, tmp_path: Path) -> None:
    assert _on_a_small_disk(tmp_path, WRITE, suffix) == str(errno.ENOSPC)


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param("footprint", id="started", marks=pytest.mark.long),
        pytest.param("latency", id="forked", marks=pytest.mark.long),
        pytest.param("kernels", id="half a profile"),
    ],
)
def test_a_full_disk_is_told_from_a_model_that_cannot_be_measured(probe: str, tmp_path: Path) -> None:
    """Such a job is tried again; one whose model could not be measured would not be."""
    assert _on_a_small_disk(tmp_path, MEASURE, "", probe) == str(errno.ENOSPC)


def _on_a_small_disk(folder: Path, script: str, *arguments: str) -> str:
    """What a script prints, on a real file system of two pages, in a mount namespace of its own."""
    namespace = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode != 0:
        pytest.skip("this machine gives out no mount namespaces")
    (disk := folder / "disk").mkdir()
    model = networks.save(networks.perceptron(width=256), folder / "model")
    command = ["sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), sys.executable, script, str(model), *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([*namespace, *command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
