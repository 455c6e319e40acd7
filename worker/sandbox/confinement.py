"""Which layers of the sandbox hold on this machine, found out by a child that tries to break each."""

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.processes import isolated_python
from worker.sandbox.child import Limits, kill_group, spawn
from worker.sandbox.memory_groups import memory_group
from worker.sandbox.probe import ATTEMPTS

PROBE_LIMITS = Limits(memory_bytes=256 << 20, file_bytes=1 << 20, processes=16)
GROUP_BYTES = 64 << 20
PATIENCE_SECONDS = 20.0
DEATH_SECONDS = 2.0
NAMESPACES = ("net", "ipc", "pid", "mnt")


@functools.cache
def confinement() -> dict[str, bool]:
    """Each layer by name, and whether it held against a real attempt; computed once a process, in about a second.

    `network`: no TCP, UDP or Unix socket reaches out. `filesystem`: nothing outside the work folder and the libraries
    is read, nothing outside the work folder written. `secrets`: neither environment nor memory of the supervisor shows.
    `signals`: no process outside gets one. `namespaces`, `private_root`, `landlock`, `system_calls`: each of these is
    in force, whatever the others keep already.
    `memory`, `file_size`, `processes`: the limits hold. `memory_group`: the kernel ends a child that holds more than a
    control group allows, though less than its own limit. `dies_with_supervisor`: after a kill -9 of the supervisor
    neither the child nor a process that it detached is left.
    """
    with tempfile.TemporaryDirectory(prefix="lathe-probe-") as folder:
        try:
            return _attempt(Path(folder)) | {
                "memory_group": _memory_group(Path(folder)),
                "dies_with_supervisor": _dies_with_supervisor(Path(folder)),
            }
        except (OSError, ValueError, subprocess.SubprocessError):
            # A child that cannot be started or heard proves nothing.
            return dict.fromkeys((*ATTEMPTS, "memory_group", "dies_with_supervisor"), False)


def _attempt(folder: Path) -> dict[str, bool]:
    outside, workdir = folder / "outside", folder / "inside"
    outside.mkdir()
    workdir.mkdir()
    (outside / "secret").write_text("secret")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        (folder / "stderr").open("wb") as stderr,
        _victim() as victim,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "unix"))
        unix.listen()
        targets = {
            "tcp": tcp.getsockname(),
            "udp": udp.getsockname(),
            "unix": str(folder / "unix"),
            "outside": str(outside),
            "supervisor": os.getpid(),
            "victim": victim,
            "namespaces": {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES},
            "memory_bytes": PROBE_LIMITS.memory_bytes,
            "file_bytes": PROBE_LIMITS.file_bytes,
        }
        read_end, write_end = os.pipe()
        command = isolated_python("worker.sandbox.probe", "attempt", str(write_end), json.dumps(targets))
        with os.fdopen(read_end, "rb") as answers:
            try:
                process = spawn(
                    command, workdir=workdir, limits=PROBE_LIMITS, event_fd=write_end, env={}, stderr=stderr
                )
            finally:
                os.close(write_end)
            try:
                answer = answers.read(4096) if _readable(answers.fileno(), PATIENCE_SECONDS) else b"{}"
            finally:
                kill_group(process)
    held = json.loads(answer)
    return {name: held.get(name) is True for name in ATTEMPTS}


@contextlib.contextmanager
def _victim() -> Iterator[int]:
    """A process that nobody would miss, by its number."""
    waiting = subprocess.Popen(isolated_python("worker.sandbox.probe", "wait", "0", str(2 * int(PATIENCE_SECONDS))))  # noqa: S603 - our own module
    try:
        yield waiting.pid
    finally:
        waiting.kill()
        waiting.wait()


def _memory_group(folder: Path) -> bool:
    """Have a child take more than its group may hold."""
    workdir = folder / "group"
    workdir.mkdir()
    command = isolated_python("worker.sandbox.probe", "overeat", "0", str(2 * GROUP_BYTES))
    with memory_group(GROUP_BYTES) as group:
        if group is None:
            return False
        process = spawn(
            command,
            workdir=workdir,
            limits=PROBE_LIMITS,
            event_fd=None,
            env={},
            stderr=subprocess.DEVNULL,
            group=group.folder,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        kill_group(process)
        return group.kills() > 0


def _dies_with_supervisor(folder: Path) -> bool:
    """Have another process supervise a child that detaches a grandchild, kill it, and wait for both to be gone."""
    workdir = folder / "orphan"
    workdir.mkdir()
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as alive:
        try:
            supervisor = subprocess.Popen(  # noqa: S603 - our own module
                isolated_python("worker.sandbox.probe", "supervise", str(write_end), str(workdir)),
                pass_fds=(write_end,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(write_end)
        # Two lines: the child and the grandchild. Both hold the pipe, so its end means that both are gone.
        started = b""
        while started.count(b"\n") < 2 and _readable(alive.fileno(), PATIENCE_SECONDS):
            read = alive.read(64)
            if not read:
                break
            started += read
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
        return started.count(b"\n") == 2 and _readable(alive.fileno(), DEATH_SECONDS) and alive.read(64) == b""


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
