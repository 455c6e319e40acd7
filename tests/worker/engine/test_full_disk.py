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
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=8k tmpfs "$1" && exec "$2" -c "$3" "$4" "$1/made/model$5"'


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_a_full_disk_is_told_from_a_model_that_the_runtime_refuses(suffix: str, tmp_path: Path) -> None:
    """On a real file system of two pages, in a mount namespace of its own."""
    namespace = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode != 0:
        pytest.skip("this machine gives out no mount namespaces")
    (disk := tmp_path / "disk").mkdir()
    model = networks.save(networks.perceptron(width=256), tmp_path / "model")
    command = ["sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), sys.executable, WRITE, str(model), suffix]
    done = subprocess.run([*namespace, *command], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout.strip()) == (0, str(errno.ENOSPC)), done.stderr
