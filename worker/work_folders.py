"""Folders for runners: one an attempt, gone with it, and swept where the worker was killed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

GATE = ".gate"
OWNER = "owner"
log = structlog.get_logger()


@contextmanager
def work_folder(base: Path) -> Iterator[Path]:
    """An empty folder (mode 0700) that is removed when the block ends, however it ends."""
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _gate(base):
        home = base / str(uuid7())
        home.mkdir(mode=0o700)
        owner = os.open(home / OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(owner, fcntl.LOCK_EX)
    try:
        run = home / "run"
        run.mkdir(mode=0o700)
        yield run
    finally:
        _remove(home)
        os.close(owner)


def sweep(base: Path) -> int:
    """Remove the folders whose owner is dead: the kernel let go of its lock. Returns how many."""
    if not base.is_dir():
        return 0
    swept = 0
    with _gate(base):
        for home in base.iterdir():
            if home.is_dir() and _is_orphan(home):
                swept += _remove(home)
    return swept


def _remove(home: Path) -> bool:
    """Whether the folder is gone. A runner may have closed its folders to everybody, itself included."""

    def open_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if not Path(path).is_symlink():
                Path(path).chmod(0o700)
            if function in {os.open, os.scandir}:
                shutil.rmtree(path)
            else:
                function(path)

    shutil.rmtree(home, onerror=open_and_retry)
    if home.exists():
        log.warning("work_folder_left", folder=str(home))
    return not home.exists()


def _is_orphan(home: Path) -> bool:
    try:
        owner = os.open(home / OWNER, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True


@contextmanager
def _gate(base: Path) -> Iterator[None]:
    """Lets nobody sweep between the making of a folder and the locking of it."""
    gate = os.open(base / GATE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield
    finally:
        os.close(gate)
