"""Folders for runners: one an attempt, gone with it, and swept where the worker was killed.

Workers may share them, also those in containers of their own: who lives is told by locks of the kernel's, which know no
numbers of processes.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

GATE = ".gate"
OWNER = "owner"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
        try:
            _remove(home)
        finally:
            os.close(owner)


def sweep(base: Path) -> int:
    """Remove the folders whose owner is dead: the kernel let go of its lock. Returns how many."""
    if not base.is_dir():
        return 0
    swept = 0
    for home in base.iterdir():
        with _taken_over(base, home) as ours:
            swept += ours and _remove(home)
    return swept


@contextmanager
def _taken_over(base: Path, home: Path) -> Iterator[bool]:
    """Whether its owner is dead. It is this one's then until the block ends: with the gate open, for what a runner left
    may take long to remove.
    """
    with ExitStack() as held:
        with _gate(base):
            ours = home.is_dir()
            try:
                owner = os.open(home / OWNER, os.O_RDWR | os.O_CLOEXEC)
                held.callback(os.close, owner)
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                pass  # it died before it had one, or when all else was removed
            except OSError:
                ours = False
        yield ours


@contextmanager
def _gate(base: Path) -> Iterator[None]:
    """Lets nobody sweep between the making of a folder and the locking of it."""
    gate = os.open(base / GATE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield
    finally:
        os.close(gate)


def _remove(home: Path) -> bool:
    """Whether the folder is gone. Raises nothing of what a runner left: the next sweep tries again."""
    with suppress(OSError):
        _empty(home)
        home.rmdir()
    gone = not home.exists()
    if not gone:
        log.warning("work_folder_left", folder=str(home))
    return gone


@dataclass
class _Level:
    """A folder on the way down, and those in it that are still to be entered."""

    name: str
    identity: tuple[int, int]
    folders: list[str]


def _empty(home: Path) -> None:
    """Remove what is in a folder; what cannot be removed stays.

    A runner may have made folders deeper than calls can be nested, and paths longer than the kernel takes: so one
    descriptor goes down, and up again by `..`. It follows no link, and of each folder the files go last, so that
    `owner` is there until nothing else is.

    Raises OSError, also where a folder was moved meanwhile and the way up leads elsewhere.
    """
    here = entered(home)
    try:
        way = [_level("", here)]
        while True:
            if way[-1].folders:
                name = way[-1].folders.pop()
                try:
                    below = entered(name, here)
                except OSError:
                    continue
                os.close(here)
                here = below
                way.append(_level(name, here))
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    with suppress(OSError):
                        os.unlink(entry.name, dir_fd=here)
            left = way.pop()
            if not way:
                return
            above = os.open("..", FOLDER, dir_fd=here)
            os.close(here)
            here = above
            if _identity(here) != way[-1].identity:
                raise OSError(f"{left.name!r} was moved while its folder was removed")
            with suppress(OSError):
                os.rmdir(left.name, dir_fd=here)
    finally:
        os.close(here)


def entered(folder: str | Path, parent: int | None = None) -> int:
    """A descriptor of a folder, which a runner may have closed to everybody, itself included. Raises OSError."""
    found = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with suppress(OSError):
            Path(f"/proc/self/fd/{found}").chmod(0o700)  # by its name it might be a link by now
        return os.open(".", FOLDER, dir_fd=found)
    finally:
        os.close(found)


def _level(name: str, descriptor: int) -> _Level:
    with os.scandir(descriptor) as entries:
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return _Level(name, _identity(descriptor), folders)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
