"""A root folder of the sandbox's own (pivot_root(2)): what may not be reached is not there, not even by its name.

It is what bubblewrap would make, made by the launcher itself. Landlock keeps the same files from being opened, but lets
it be seen that they exist, and lets whoever owns them change their modes, owners and times.
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from worker.sandbox import mounting, system_calls
from worker.sandbox.mounting import BIND, NODEV, NOEXEC, NOSUID, RECURSIVE, mount

TREE_BYTES = 4 << 20
PROC = Path("/proc")
DEVICE_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}


def enter(base: Path, readable: Iterable[Path], writable: Path) -> bool:
    """Make `readable` and `writable` all that there is, with `/proc` and an empty `/dev/shm`; the rest is gone.

    `base`, any folder, holds it while it is made, in mounts that nobody outside sees. The working folder is `writable`
    then. Returns False, with nothing changed, where the kernel refuses or Python could not start in there.

    Raises OSError where the old root stays within reach.
    """
    pivot_root = system_calls.number_of("pivot_root")
    if pivot_root is None:
        return False
    try:
        mount("root", base, "tmpfs", NOSUID | NODEV, f"mode=755,size={TREE_BYTES}")
    except OSError:
        return False
    try:
        _fill(base, readable, writable)
        if not _starts_python(base):
            raise FileNotFoundError(sys.executable)
        os.chdir(base)
        mounting.change_root(pivot_root)
    except OSError:
        os.chdir(writable)
        mounting.unmount(base)
        return False
    os.chdir(writable)
    return True


def _fill(base: Path, readable: Iterable[Path], writable: Path) -> None:
    there = {path: path.resolve() for path in readable if path.exists()}
    bound: list[Path] = []
    for real in sorted(set(there.values())):
        if not any(real.is_relative_to(other) for other in (*bound, PROC)):
            _bind(base, real, RECURSIVE)
            mounting.restrict(_within(base, real), mounting.READ_ONLY | mounting.WITHOUT_SUID, recursive=True)
            bound.append(real)
    for path, real in there.items():
        if path != real and not os.path.lexists(_within(base, path)):
            _within(base, path).parent.mkdir(parents=True, exist_ok=True)
            _within(base, path).symlink_to(real)
    _mount_proc(_within(base, PROC))
    (base / "dev/shm").mkdir(parents=True)
    for name, target in DEVICE_LINKS.items():
        (base / "dev" / name).symlink_to(f"/proc/self/fd{target}")
    _bind(base, writable, 0)  # alone: `base` may lie in it
    mounting.restrict(_within(base, writable), mounting.WITHOUT_SUID | mounting.WITHOUT_DEVICES)
    mounting.restrict(base, mounting.READ_ONLY)


def _within(base: Path, path: Path) -> Path:
    return base / path.relative_to("/")


def _bind(base: Path, path: Path, recursive: int) -> None:
    """A folder, or a file, at the place where it was."""
    target = _within(base, path)
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(path), target, None, BIND | recursive)


def _mount_proc(target: Path) -> None:
    """Of the new process namespace; the old one where a container hides parts of it, for then no other is allowed."""
    target.mkdir()
    with contextlib.suppress(OSError):
        mount("proc", target, "proc", NOSUID | NODEV | NOEXEC)
        return
    mount(str(PROC), target, None, BIND | RECURSIVE)


def _starts_python(base: Path) -> bool:
    """Whether the interpreter and its library are found within: links to them may lead through what is not there."""
    child = os.fork()
    if child == 0:
        found = False
        with contextlib.suppress(OSError):
            os.chroot(base)
            found = os.access(sys.executable, os.X_OK) and os.access(os.__file__, os.R_OK)
        os._exit(0 if found else 1)
    return os.waitpid(child, 0)[1] == 0
