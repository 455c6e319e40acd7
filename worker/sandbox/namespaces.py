"""Namespaces (namespaces(7)): no network, no shared memory and no process that the sandbox did not start itself."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ISOLATED = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000

SHARED_MEMORY_BYTES = 64 << 20
# RESERVED_PIDS of kernel/pid.c: numbers up to here are given out once, and never again after the first 300 processes.
RESERVED_NUMBERS = 300
# From here on a process namespace has a bound of its own; before, writing it would change the whole machine's.
OWN_PROCESS_BOUND_SINCE = (6, 14)

_LIBC = ctypes.CDLL(None, use_errno=True)


def enter() -> tuple[bool, bool]:
    """Leave the machine's namespaces. The process namespace takes effect for children.

    Returns whether they were left, and whether into a user namespace of one's own: one identity, without which a
    process that is not root may leave none.
    """
    if _LIBC.unshare(ISOLATED) == 0:
        return True, False
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(ISOLATED | CLONE_NEWUSER) != 0:
        return False, False
    # user_namespaces(7): groups may be mapped by an unprivileged process only once it has given up setgroups(2).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True, True


def settle(process_bound: int) -> bool:
    """As the first process inside: a /proc of this namespace alone, private shared memory, a process bound.

    Each where the kernel allows it: a container hides parts of /proc, and then no other may be mounted over it.
    Returns whether the shared memory is private.
    """
    if not _mount(None, "/", None, MS_REC | MS_PRIVATE, None):
        return False
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    private = _mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={SHARED_MEMORY_BYTES}")  # noqa: S108 - the system's own name
    if kernel_version() >= OWN_PROCESS_BOUND_SINCE:
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel/pid_max").write_text(str(RESERVED_NUMBERS + process_bound))
    return private


def kernel_version() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> bool:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    return int(_LIBC.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode())) == 0
