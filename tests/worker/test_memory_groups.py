"""A runner's control group: what its processes hold together is bound, and nothing of it stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.sandbox import Limits, kill_group, memory_group, memory_groups, spawn

MEBIBYTE = 1 << 20
LIMIT_BYTES = 128 * MEBIBYTE
# Of a process on its own: what each of these takes is within it.
LIMITS = Limits(memory_bytes=512 * MEBIBYTE, file_bytes=MEBIBYTE, processes=32)
HUNGRY = "import os, time\nfor _ in range(4): os.fork()\neaten = bytearray({bytes})\n{then}"


@pytest.fixture(scope="module")
def home() -> Path:
    found = memory_groups.home_of_groups()
    if found is None:
        pytest.skip("no control group can be made here")
    return found


def groups(home: Path) -> list[Path]:
    return list(home.glob(f"{memory_groups.PREFIX}{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("each_bytes", "then", "killed"),
    [(32 * MEBIBYTE, "time.sleep(60)", True), (MEBIBYTE, "pass", False)],
    ids=["too-much-together", "within-the-limit"],
)
def test_what_all_processes_hold_together_is_bound(
    each_bytes: int, then: str, killed: bool, home: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HUNGRY.format(bytes=each_bytes, then=then)]
    with memory_group(LIMIT_BYTES) as group:
        assert group is not None and groups(home) == [group.folder]
        process = spawn(
            command,
            workdir=tmp_path,
            limits=LIMITS,
            event_fd=None,
            env={},
            stderr=subprocess.DEVNULL,
            group=group.folder,
        )
        try:
            if not killed:
                assert process.wait(20) == 0
            while killed and not group.kills():
                assert process.poll() is None
        finally:
            kill_group(process)
        assert (group.kills() > 0) is killed
        peak_bytes = group.peak_bytes()
        assert peak_bytes is None or MEBIBYTE < peak_bytes <= LIMIT_BYTES
    assert groups(home) == []


def test_groups_of_dead_supervisors_are_swept_and_those_of_living_ones_stay(home: Path) -> None:
    # This process's number, of which another process had the use before.
    stale = home / f"{memory_groups.PREFIX}{os.getpid()}-1-0"
    stale.mkdir()
    with memory_group(LIMIT_BYTES) as group:
        assert group is not None
        assert memory_groups.sweep() >= 1
        assert groups(home) == [group.folder]


def _version_2(root: Path, said: str, group: str, controllers: str = "cpu memory") -> Path:
    """Files of a group as the kernel would have them, with two processes in it."""
    files = {"cgroup.controllers": controllers, "cgroup.procs": "17\n18\n", "cgroup.subtree_control": "",
             "cgroup.type": "domain", "lathe-supervisors/cgroup.procs": ""}  # fmt: skip
    folder = root / "sys/fs/cgroup" / group
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(said)
    return folder


@pytest.mark.parametrize(
    ("said", "group", "controllers", "moved"),
    [
        ("0::/\n", "", "cpu memory", True),
        ("0::/user.slice/session-1.scope\n", "user.slice/session-1.scope", "cpu memory", False),
        ("0::/\n", "", "cpu", False),
    ],
    ids=["a-container's-own", "nobody-handed-it-over", "without-a-controller-of-memory"],
)
def test_processes_are_moved_within_groups_that_were_handed_over_alone(
    said: str, group: str, controllers: str, moved: bool, tmp_path: Path
) -> None:
    """What the kernel would do with version 2 is not shown here: these are plain files."""
    folder = _version_2(tmp_path, said, group, controllers)
    memory_groups.home_of_groups(tmp_path)
    assert (folder / "cgroup.subtree_control").read_text() == ("+memory" if moved else "")
    assert bool((folder / "lathe-supervisors/cgroup.procs").read_text()) is moved
