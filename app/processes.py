"""Child processes that cannot outlive their parent.

The kernel holds this, by PR_SET_PDEATHSIG (prctl(2)), so it is true after a `kill -9` of the parent as well. The signal
comes when the *thread* that forked ends: start such children from a thread that outlives them.
A multi-threaded parent must run no Python between fork and exec, so the child starts as this module, ties itself to
its parent while it has one thread, and then becomes the command.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
"""The folder that `app` and `worker` are imported from: a checkout, or site-packages."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: int) -> None:
    """Set one attribute of this process; see the manual page of the same name. Raises OSError."""
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    if _LIBC.prctl(ctypes.c_int(option), *padded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_capabilities(mask: int) -> None:
    """Make `mask` the effective and permitted capabilities of this thread, and nothing inheritable but those.

    Raises OSError.
    """
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    if _LIBC.capset(header, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def die_with_parent(parent_pid: int | None, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies; survives an exec.

    `parent_pid` is the parent as the parent itself knows it: if it died before this call, this process ends at once.
    None skips that check, for a caller with another way to know.
    """
    prctl(PR_SET_PDEATHSIG, signal_number)
    if parent_pid is not None and os.getppid() != parent_pid:
        os._exit(0)


def isolated_python(module: str, *arguments: str) -> list[str]:
    """The command that runs `main()` of one of our modules on the standard library alone.

    No `site`, no environment variable and no current folder has a say in what is imported, and it starts in some 15 ms.
    """
    # Ours comes last on the path, so that nothing installed beside it stands in for the standard library.
    start = "import sys, importlib; sys.path.append(sys.argv[1]); importlib.import_module(sys.argv[2]).main()"
    return [sys.executable, "-I", "-S", "-c", start, str(PROJECT_FOLDER), module, *arguments]


def tied_command(argv: list[str], *, signal_number: int = signal.SIGKILL, user_id: int | None = None) -> list[str]:
    """`argv` made to die with the calling process, by `signal_number`, and run as `user_id` where one is given.

    Such a user keeps one capability, CAP_DAC_OVERRIDE: it stands in for root where a program refuses to run as root,
    and the folders that it works in stay closed to everybody else, other processes of that user included.
    """
    options = {"parent": os.getpid(), "signal": int(signal_number), "user_id": user_id}
    return isolated_python("app.processes", json.dumps(options), *argv)


def _become(user_id: int) -> None:
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)
    set_capabilities(1 << CAP_DAC_OVERRIDE)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def main() -> None:
    """`app.processes OPTIONS COMMAND...`: what `tied_command` starts."""
    options = json.loads(sys.argv[3])
    argv = sys.argv[4:]
    if options["user_id"] is not None:
        _become(options["user_id"])
    # After the change of user, which clears it.
    die_with_parent(options["parent"], options["signal"])
    # Python's own start ignored these, and an exec would hand that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvp(argv[0], argv)  # noqa: S606 - our own command, and no shell is wanted
