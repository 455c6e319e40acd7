"""Control groups of runners, one each: what all its processes hold together ends at its limit.

A resource limit counts each process on its own, and addresses in place of memory. Linux kernel documentation,
admin-guide/cgroup-v2.rst (delegation; no processes in a group that hands controllers on) and cgroup-v1/memory.rst;
systemd's CGROUP_DELEGATION. Standard library only: the launcher imports this package.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker import control_groups
from worker.memory import kills_in

PREFIX = "lathe-runner-"
# Where version 2 has the processes of a group whose memory is divided among others.
LEAF = "lathe-supervisors"
# Limits in the order in which they can be set, the first of which must be there.
VERSION_1 = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
VERSION_2 = ("memory.max",)
# No swap, which would be more than memory; and of a group that has too little, all end at once.
CONSTANTS = {"memory.swappiness": "0", "memory.swap.max": "0", "memory.oom.group": "1"}
PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
MOVING_ROUNDS = 5
REMOVAL_SECONDS = 2.0
_numbers = itertools.count()


@dataclass(frozen=True)
class MemoryGroup:
    """A group that a runner is started in."""

    folder: Path

    def kills(self) -> int:
        """How many of its processes the kernel ended for lack of memory."""
        return kills_in(self.folder) or 0

    def peak_bytes(self) -> int | None:
        """The most that its processes held together, files in the cache included; None where nobody counts."""
        said = [control_groups.read(self.folder / name) for name in PEAKS]
        return next((int(text) for text in said if text.isdecimal()), None)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup | None]:
    """A group of `limit_bytes`, removed when the block ends; None where this machine lets none be made.

    Raises OSError where it did before, and now does not.
    """
    group = _make(limit_bytes)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group.folder)


def sweep() -> int:
    """Remove the groups whose supervisor is dead. Returns how many."""
    home = home_of_groups()
    if home is None:
        return 0
    return sum(_is_orphan(folder.name) and _rmdir(folder) for folder in home.glob(f"{PREFIX}*"))


@functools.cache
def home_of_groups(root: Path = Path("/")) -> Path | None:
    """The group in which those of runners can be made; None where there is none.

    With version 2 all processes of this one's group move into a group of their own inside, once, and only where the
    group was handed to whoever runs in it: a container's own, or one that systemd delegates.
    """
    for folder in control_groups.folders("memory", root):
        if (folder / VERSION_1[0]).exists():
            return _usable(folder)
        if (folder / "cgroup.controllers").exists():
            with contextlib.suppress(OSError):
                return _usable(_divided(folder))
            return None
    return None


def _usable(home: Path | None) -> Path | None:
    """`home`, if a group can be made in it and has a limit."""
    if home is None:
        return None
    trial = home / _new_name()
    try:
        _set_limits(trial, 1 << 30)
    except OSError:
        return None
    finally:
        _rmdir(trial)
    return home


def _divided(own: Path) -> Path | None:
    if own.name == LEAF:
        return own.parent
    if "memory" not in control_groups.read(own / "cgroup.controllers").split() or not _delegated(own):
        return None
    leaf = own / LEAF
    leaf.mkdir(exist_ok=True)
    for _ in range(MOVING_ROUNDS):  # what moves may be starting others
        for process in control_groups.read(own / "cgroup.procs").split():
            with contextlib.suppress(ProcessLookupError):
                _write(leaf / "cgroup.procs", process)
    _write(own / "cgroup.subtree_control", "+memory")
    return own


def _delegated(own: Path) -> bool:
    """Whether processes may be moved about in it: systemd marks such groups, and a container sees its own as the root.

    The machine's root is none: it has no type.
    """
    if not os.access(own / "cgroup.subtree_control", os.W_OK):
        return False
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(own, mark) == b"1"
    return own.name == "cgroup" and (own / "cgroup.type").exists()


def _make(limit_bytes: int) -> MemoryGroup | None:
    home = home_of_groups()
    if home is None:
        return None
    folder = home / _new_name()
    try:
        _set_limits(folder, limit_bytes)
    except OSError:
        _rmdir(folder)
        raise
    return MemoryGroup(folder)


def _new_name() -> str:
    return f"{PREFIX}{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"


def _set_limits(folder: Path, limit_bytes: int) -> None:
    """Make the group. Raises OSError where it cannot be made, or has no limit on memory."""
    folder.mkdir()
    first, *others = VERSION_1 if (folder / VERSION_1[0]).exists() else VERSION_2
    _write(folder / first, str(limit_bytes))
    # What a kernel without swap, or an older one, does not have.
    for name, value in (dict.fromkeys(others, str(limit_bytes)) | CONSTANTS).items():
        with contextlib.suppress(OSError):
            _write(folder / name, value)


def _write(path: Path, text: str) -> None:
    """Write to a file that is there already, as all files of a group are."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Its processes were killed, and take a moment to go."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while not _rmdir(folder):
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _rmdir(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _is_orphan(name: str) -> bool:
    process, started, _ = name.removeprefix(PREFIX).split("-")
    return _started(int(process)) != started


def _started(process: int) -> str:
    """When it started, in ticks since the machine did (proc(5)): its number may be given to another one later."""
    stat = control_groups.read(Path(f"/proc/{process}/stat"))
    return stat.rpartition(")")[2].split()[19] if stat else ""
