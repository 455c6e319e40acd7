"""What a runner writes is counted as the disk has it, and beyond what it may, that ends it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker import written
from worker.failures import JobFailed
from worker.written import Written

MEBIBYTE = 1 << 20


def many_bytes(home: Path) -> None:
    for number in range(9):
        (home / "run" / str(number)).write_bytes(os.urandom(MEBIBYTE // 8))


def output_on_stderr(home: Path) -> None:
    (home / "stderr").write_bytes(os.urandom(MEBIBYTE + 4096))


def a_closed_folder(home: Path) -> None:
    (home / "run" / "closed").mkdir()
    (home / "run" / "closed" / "file").write_bytes(os.urandom(MEBIBYTE + 4096))
    (home / "run" / "closed").chmod(0)


def many_files(home: Path) -> None:
    for number in range(11):
        (home / "run" / str(number)).touch()


def folders_in_folders(home: Path) -> None:
    (home / "run" / Path(*"abcdef")).mkdir(parents=True)


@dataclass
class Left:
    id: str
    leave: Callable[[Path], None]


TOO_MUCH = [
    Left("bytes", many_bytes),
    Left("stderr", output_on_stderr),
    Left("closed", a_closed_folder),
    Left("files", many_files),
    Left("levels", folders_in_folders),
]


def what_was_brought(home: Path) -> None:
    (home / "run" / "model").hardlink_to(home / "run" / "inputs")


def a_hole(home: Path) -> None:
    with (home / "stderr").open("wb") as file:
        file.truncate(1 << 34)


def links(home: Path) -> None:
    (home / "run" / "to-itself").symlink_to(home / "run")
    (home / "run" / "nowhere").symlink_to("nowhere")


def little(home: Path) -> None:
    (home / "run" / "file").write_bytes(os.urandom(MEBIBYTE // 2))


NOT_TOO_MUCH = [
    Left("brought", what_was_brought),
    Left("hole", a_hole),
    Left("links", links),
    Left("little", little),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of an attempt, to which more was brought than may be written."""
    monkeypatch.setattr(written, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(written, "MOST_FILES", 10)
    monkeypatch.setattr(written, "MOST_LEVELS", 5)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "inputs").write_bytes(os.urandom(2 * MEBIBYTE))
    return tmp_path


@pytest.mark.parametrize("case", TOO_MUCH, ids=lambda case: case.id)
def test_more_than_a_runner_may_write_ends_it(case: Left, home: Path) -> None:
    looking = Written(home, MEBIBYTE)
    looking.look()
    case.leave(home)
    with pytest.raises(JobFailed) as failed:
        looking.look()
    assert (failed.value.fault.code, failed.value.retryable) == ("too_much_written", False)


@pytest.mark.parametrize("case", NOT_TOO_MUCH, ids=lambda case: case.id)
def test_what_takes_no_more_of_the_disk_is_no_reason(case: Left, home: Path) -> None:
    looking = Written(home, MEBIBYTE)
    case.leave(home)
    looking.look()
