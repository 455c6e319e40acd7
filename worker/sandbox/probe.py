"""The attempts of `confinement`, made from inside the sandbox. Standard library only."""

import contextlib
import errno
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.processes import isolated_python
from worker.sandbox.child import Limits, spawn

FORKS = 400


def network(targets: dict[str, Any]) -> bool:
    """Whether no socket reaches the supervisor, over TCP, UDP or a path."""
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, tuple(targets["tcp"])),
        (socket.AF_INET, socket.SOCK_DGRAM, tuple(targets["udp"])),
        (socket.AF_UNIX, socket.SOCK_STREAM, targets["unix"]),
    ):
        with contextlib.suppress(OSError), socket.socket(family, kind) as out:
            out.settimeout(1)
            out.connect(address)
            out.send(b"out")
            return False
    return True


def filesystem(targets: dict[str, Any]) -> bool:
    """Whether a file outside can be neither read nor made, and one inside can."""
    outside = Path(targets["outside"])
    with contextlib.suppress(OSError):
        (outside / "secret").read_bytes()
        return False
    with contextlib.suppress(OSError):
        (outside / "made").write_bytes(b"out")
        return False
    Path("made").write_bytes(b"in")
    return True


def secrets(targets: dict[str, Any]) -> bool:
    """Whether the supervisor's environment and memory stay hidden."""
    for name in ("environ", "mem", "maps"):
        with contextlib.suppress(OSError):
            with Path(f"/proc/{targets['supervisor']}/{name}").open("rb") as hidden:
                hidden.read(1)
            return False
    return True


def namespaces(targets: dict[str, Any]) -> bool:
    """Whether network, IPC, processes and mounts are others than the supervisor's."""
    return all(Path(f"/proc/self/ns/{kind}").readlink() != Path(name) for kind, name in targets["namespaces"].items())


def private_root(targets: dict[str, Any]) -> bool:
    """Whether a file outside is not there at all."""
    with contextlib.suppress(FileNotFoundError):
        Path(targets["outside"]).stat()
        return False
    return True


def landlock(targets: dict[str, Any]) -> bool:
    """Whether the root folder, which belongs to nothing that is allowed, cannot be listed."""
    del targets
    with contextlib.suppress(PermissionError):
        list(Path("/").iterdir())
        return False
    return True


def system_calls(targets: dict[str, Any]) -> bool:
    """Whether a socket cannot even be made, of whichever family."""
    del targets
    with contextlib.suppress(PermissionError), socket.socket(socket.AF_UNIX):
        return False
    return True


def signals(targets: dict[str, Any]) -> bool:
    """Whether a process outside cannot be sent a signal."""
    with contextlib.suppress(OSError):
        os.kill(targets["victim"], signal.SIGKILL)
        return False
    return True


def memory(targets: dict[str, Any]) -> bool:
    """Whether more memory than the limit is refused."""
    try:
        mmap.mmap(-1, targets["memory_bytes"] + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return True
    return False


def file_size(targets: dict[str, Any]) -> bool:
    """Whether a file past the limit is refused."""
    try:
        with Path("large").open("wb") as large:
            large.truncate(targets["file_bytes"] + 1)
    except OSError as refusal:
        return refusal.errno == errno.EFBIG
    return False


def processes(targets: dict[str, Any]) -> bool:
    """Whether forks come to an end."""
    del targets
    children: list[int] = []
    try:
        for _ in range(FORKS):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError:
        return True
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return False


ATTEMPTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    attempt.__name__: attempt
    for attempt in (
        network,
        filesystem,
        secrets,
        signals,
        namespaces,
        private_root,
        landlock,
        system_calls,
        memory,
        file_size,
        processes,
    )
}


def _supervise(write_end: int, workdir: str) -> None:
    limits = Limits(memory_bytes=1 << 30, file_bytes=1 << 20, processes=16)
    command = isolated_python("worker.sandbox.probe", "linger", str(write_end))
    spawn(command, workdir=Path(workdir), limits=limits, event_fd=write_end, env={}, stderr=subprocess.DEVNULL)
    signal.pause()


def _linger(write_end: int) -> None:
    if os.fork() == 0:
        os.setsid()
    os.write(write_end, b"up\n")
    while True:
        time.sleep(60)


def main() -> None:
    """`probe attempt|supervise|linger|wait|overeat DESCRIPTOR [ARGUMENT]`."""
    action, descriptor = sys.argv[3], int(sys.argv[4])
    if action == "supervise":
        _supervise(descriptor, sys.argv[5])
    elif action == "linger":
        _linger(descriptor)
    elif action == "wait":
        time.sleep(int(sys.argv[5]))
    elif action == "overeat":
        bytearray(int(sys.argv[5]))
    else:
        targets = json.loads(sys.argv[5])
        held = {name: attempt(targets) for name, attempt in ATTEMPTS.items()}
        os.write(descriptor, json.dumps(held).encode())
