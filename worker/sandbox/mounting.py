"""mount(2) and mount_setattr(2)."""

import ctypes
import os
from pathlib import Path

from worker.sandbox.libc import LIBC, checked

NOSUID, NODEV, NOEXEC, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
DETACH = 2
SET_ATTRIBUTES = 442  # on all architectures
AT_WORKING_FOLDER, AT_RECURSIVE = -100, 0x8000
READ_ONLY, WITHOUT_SUID, WITHOUT_DEVICES = 1, 2, 4


class MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users"))


def mount(source: str | None, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount a file system of `kind`, or what is at `source`. Raises OSError."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    checked(LIBC.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()), "mount")


def unmount(target: Path) -> None:
    """Take it away, with all that is mounted within. Raises OSError."""
    checked(LIBC.umount2(os.fsencode(target), DETACH), "mount")


def restrict(target: Path, attributes: int, *, recursive: bool = False) -> None:
    """Give what is mounted at `target` more restrictions, and what is mounted within. Raises OSError (before 5.12)."""
    wanted = MountAttributes(attributes)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    flags = AT_RECURSIVE if recursive else 0
    path = os.fsencode(target)
    checked(LIBC.syscall(SET_ATTRIBUTES, AT_WORKING_FOLDER, path, flags, ctypes.byref(wanted), size), "mount")


def change_root(number: int) -> None:
    """Make the working folder, at which something is mounted, the root. Raises OSError.

    `number` is that of pivot_root(2). The old root lies over the new one then, and is taken away from there.
    """
    checked(LIBC.syscall(number, b".", b"."), "mount")
    unmount(Path())
