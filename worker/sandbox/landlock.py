"""Landlock (landlock(7)): the files a process may read, write and run, whoever owns them."""

import ctypes
import os
from pathlib import Path

from worker.sandbox.libc import LIBC, checked

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1
CREATE_RULESET_VERSION = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE, MAKE_DEVICE, MAKE = 0b11 << 4, 1 << 6 | 1 << 11, 1 << 7 | 0b11 << 8 | 1 << 10 | 1 << 12
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1, 2

# Rights that the kernel knows of beyond the first version, by the version that brought them.
FILE_RIGHTS_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEVICE}
NETWORK_SINCE, SCOPE_SINCE = 4, 6

READ = EXECUTE | READ_FILE | READ_DIR
WORK = READ_FILE | READ_DIR | WRITE_FILE | REMOVE | MAKE | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEVICE
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE


class RulesetAttributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that the kernel speaks; 0 where it speaks none."""
    return max(0, int(LIBC.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), CREATE_RULESET_VERSION)))


def restrict(allowed: dict[Path, int]) -> bool:
    """Let this thread, for good, do with files only what `allowed` says; no TCP; no signal to a process outside.

    A path that does not exist is passed over. It also hides the environment and the memory of processes outside, which
    `/proc` would show to the same user. Needs PR_SET_NO_NEW_PRIVS. Returns whether the kernel can.
    """
    abi = version()
    if abi == 0:
        return False
    handled = READ | WORK & ~(REFER | TRUNCATE) | MAKE_DEVICE
    for since, right in FILE_RIGHTS_SINCE.items():
        handled |= right if abi >= since else 0
    attributes = RulesetAttributes(
        handled,
        BIND_TCP | CONNECT_TCP if abi >= NETWORK_SINCE else 0,
        SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL if abi >= SCOPE_SINCE else 0,
    )
    size = 24 if abi >= SCOPE_SINCE else 16 if abi >= NETWORK_SINCE else 8
    ruleset = checked(LIBC.syscall(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0), "landlock")
    for path, rights in allowed.items():
        _allow(ruleset, path, rights & handled)
    checked(LIBC.syscall(RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rights = rights if path.is_dir() else rights & ON_A_FILE
    rule = PathBeneath(rights, folder)
    checked(LIBC.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0), "landlock")
    os.close(folder)
