"""Namespaces (namespaces(7)): no network, no shared memory and no process that the sandbox did not start itself."""

import contextlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from worker.sandbox import mounting, private_root
from worker.sandbox.libc import LIBC
from worker.sandbox.mounting import NODEV, NOEXEC, NOSUID, PRIVATE, RECURSIVE, mount

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ISOLATED = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's own name
SHARED_MEMORY_BYTES = 64 << 20
# RESERVED_PIDS of kernel/pid.c: numbers up to here are given out once, and never again after the first 300 processes.
RESERVED_NUMBERS = 300
# From here on a process namespace has a bound of its own; before, writing it would change the whole machine's.
OWN_PROCESS_BOUND_SINCE = (6, 14)


def enter() -> tuple[bool, bool]:
    """Leave the machine's namespaces. The process namespace takes effect for children.

    Returns whether they were left, and whether into a user namespace of one's own: one identity, without which a
    process that is not root may leave none.
    """
    if LIBC.unshare(ISOLATED) == 0:
        return True, False
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(ISOLATED | CLONE_NEWUSER) != 0:
        return False, False
    # user_namespaces(7): groups may be mapped by an unprivileged process only once it has given up setgroups(2).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True, True


def settle(process_bound: int, readable: Iterable[Path], workdir: Path) -> bool:
    """As the first process inside: a root of its own, a /proc of this namespace alone, private shared memory, a bound.

    Each where the kernel allows it: a container hides parts of /proc, and then no other may be mounted over it.
    Returns whether the shared memory is private.

    Raises OSError where the old root stays within reach of the new one.
    """
    try:
        mount(None, Path("/"), None, RECURSIVE | PRIVATE)
    except OSError:
        return False
    if not private_root.enter(workdir / "tmp", readable, workdir):
        with contextlib.suppress(OSError):
            mount("proc", Path("/proc"), "proc", NOSUID | NODEV | NOEXEC)
    if kernel_version() >= OWN_PROCESS_BOUND_SINCE:
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel/pid_max").write_text(str(RESERVED_NUMBERS + process_bound))
    with contextlib.suppress(OSError):
        mounting.restrict(Path("/proc"), mounting.READ_ONLY, recursive=True)
    with contextlib.suppress(OSError):
        mount("shm", SHARED_MEMORY, "tmpfs", NOSUID | NODEV | NOEXEC, f"size={SHARED_MEMORY_BYTES}")
        return True
    return False


def kernel_version() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
