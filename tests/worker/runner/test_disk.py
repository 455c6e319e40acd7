"""A runner that may not write on: its disk is full, or a file would be larger than it may be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.jobs.states import JobKind
from tests.worker.runner.hostile.archives import pack, plain
from tests.worker.runner.hostile.case import TAR
from tests.worker.runner.jobs import INPUT, prepare
from worker.engine.faults import NO_ROOM
from worker.runner.contract import RESULT_FILE, RunnerResult

MEMBER_BYTES = 600_000


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A job whose archive takes as much room again once it is unpacked."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / INPUT).write_bytes(pack(plain("model.onnx", bytes(MEMBER_BYTES))))
    prepare(JobKind.INSPECT_MODEL, folder, TAR)
    return folder


RUN_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=1m tmpfs "$1" && cp -r "$2" "$1/run" && "$3" -m worker.runner "$1/run" > "$1/stderr" 2>&1
ended=$?
cat "$1/run/result.json"
exit $ended
"""


def on_a_disk_of_its_own(script: str, workdir: Path, tmp_path: Path) -> "subprocess.CompletedProcess[bytes]":
    """The script on a real file system, in a mount namespace of its own."""
    (disk := tmp_path / "disk").mkdir()
    unshare = shutil.which("unshare")
    namespace = [unshare or "unshare", "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives out no mount namespaces")
    command = ["sh", "-c", script, "sh", str(disk), str(workdir), sys.executable]
    return subprocess.run([*namespace, *command], capture_output=True, check=False)


def test_a_full_disk_is_reported_as_that_on_that_disk(workdir: Path, tmp_path: Path) -> None:
    done = on_a_disk_of_its_own(RUN_ON_A_SMALL_DISK, workdir, tmp_path)
    assert done.returncode == 0, done.stderr
    result = RunnerResult.model_validate_json(done.stdout)
    assert result.fault is not None
    assert (result.fault.code, result.retryable) == ("disk_full", True)
    assert "LATHE_WORK_FOLDER" in result.fault.detail


RUN_ON_A_DISK_THAT_OTHERS_FILLED = """
mount -t tmpfs -o size=3m tmpfs "$1" && cp -r "$2" "$1/run" && cat /dev/zero > "$1/others"
"$3" -m worker.runner "$1/run" > /dev/null 2>&1
"""


def test_no_room_for_so_much_as_the_result_is_told_by_how_the_runner_ends(workdir: Path, tmp_path: Path) -> None:
    assert on_a_disk_of_its_own(RUN_ON_A_DISK_THAT_OTHERS_FILLED, workdir, tmp_path).returncode == NO_ROOM


RUN_WITH_SMALL_FILES = """
import resource, sys
from worker.runner.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_file_over_the_limit_is_named_with_the_limit(workdir: Path) -> None:
    subprocess.run([sys.executable, "-c", RUN_WITH_SMALL_FILES, str(workdir)], capture_output=True, check=True)
    result = RunnerResult.model_validate_json((workdir / RESULT_FILE).read_bytes())
    assert result.fault is not None
    assert (result.fault.code, result.retryable) == ("file_too_large", False)
    assert "500,000 bytes" in result.fault.detail
    assert "LATHE_RUNNER_FILE_BYTES" in (result.fault.remedy or "")
