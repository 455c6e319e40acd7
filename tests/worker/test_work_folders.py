"""Folders of runners go, whatever was left in them."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.work_folders import OWNER, sweep, work_folder

# Deeper than calls can be nested, and longer than a path may be.
DEPTH = 3000
OWNED_ELSEWHERE = """
import sys
from pathlib import Path
from worker.work_folders import work_folder
with work_folder(Path(sys.argv[1])) as folder:
    (folder / "left").mkdir()
    print("made", flush=True)
    sys.stdin.read()
"""


def nest(folder: Path, depth: int = DEPTH) -> None:
    """A folder in a folder in a folder."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def folders(base: Path) -> list[Path]:
    return [path for path in base.iterdir() if path.is_dir()]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_folder_that_is_too_deep_for_calls_goes_and_hides_no_failure(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match="the attempt's own"), work_folder(tmp_path) as folder:
        nest(folder)
        raise ValueError("the attempt's own")
    assert folders(tmp_path) == []
    assert open_descriptors() == before


def test_a_deep_folder_of_a_worker_that_was_killed_is_swept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    (home / OWNER).touch()
    nest(home / "run")
    assert sweep(tmp_path) == 1
    assert folders(tmp_path) == []


def test_what_is_strange_goes_and_nothing_elsewhere_does(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o750)
    (elsewhere / "kept").touch()
    base = tmp_path / "base"
    with work_folder(base) as folder:
        (folder / "folder").mkdir()
        for place in (folder, folder / "folder"):
            (place / "link").symlink_to(elsewhere)
            (place / "dangling").symlink_to("nowhere")
            os.mkfifo(place / "pipe")
            (place / ("n" * 255)).touch()
            (place / os.fsdecode(b"\xff\xfe")).mkdir()
            (place / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\x80")).touch()
        (folder / "folder").chmod(0)
        folder.chmod(0)
    assert folders(base) == []
    assert ([path.name for path in elsewhere.iterdir()], elsewhere.stat().st_mode & 0o777) == (["kept"], 0o750)


def test_a_folder_is_its_owners_in_another_process_until_that_one_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNED_ELSEWHERE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"made\n"
        assert sweep(tmp_path) == 0
        owner.kill()
        owner.wait()
    assert sweep(tmp_path) == 1
    assert folders(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="for others the test above shows it")
def test_a_worker_that_is_not_root_removes_what_its_runner_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    process = multiprocessing.get_context("fork").Process(target=close_folders_as_nobody, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def close_folders_as_nobody(base: Path) -> None:
    os.chdir(base)  # the way there is open to root alone
    os.setgid(65534)
    os.setuid(65534)
    with work_folder(Path("base")) as folder:
        inner = folder / "a" / "b"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        for place in (inner, inner.parent, folder):
            place.chmod(0)
    assert folders(Path("base")) == []
