"""The supervisor's side of the sandbox: start a confined child, and end it with everything it started."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from app.processes import PROJECT_FOLDER, isolated_python

# What a child may know of its surroundings: how many threads to use, and where a GPU and its libraries are.
INHERITED_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
)


@dataclass(frozen=True)
class Limits:
    """What one child may take. Memory, file size and processor time count for each process on its own."""

    memory_bytes: int
    """Address space of a process; ONNX Runtime's CPU provider maps some 0.3 GiB beyond what its model needs."""
    file_bytes: int
    """The largest file it may write."""
    processes: int
    """Processes and threads of the child together. Run as root the bound is the process namespace's: as many, and up to
    300 more until the kernel has given out each number once."""
    cpu_seconds: int | None = None
    """Processor time, after which SIGXCPU and then SIGKILL end it."""
    address_space: bool = True
    """False for CUDA, which reserves more addresses than there is memory: then only writable memory is counted."""


def spawn(
    argv: list[str],
    *,
    workdir: Path,
    limits: Limits,
    event_fd: int | None,
    env: dict[str, str],
    stderr: IO[bytes] | int,
    group: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` confined to `workdir`, in a session of its own, with `env` and next to nothing of ours.

    The child gets SIGKILL when the calling *thread* ends (prctl(2), PR_SET_PDEATHSIG): call this from the thread that
    waits for it. `event_fd` stays open in the child under its number; the caller closes its own copy.
    What the child prints goes to `stderr`. With `group`, the folder of a control group, all of it runs in there.
    The returned process ends as the child ended, by a signal too.

    Raises OSError where no process can be started.
    """
    workdir = workdir.resolve()
    temporary = workdir / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    specification = {
        "argv": argv,
        "workdir": str(workdir),
        "limits": asdict(limits),
        "event_fd": event_fd,
        "group": None if group is None else str(group),
        "supervisor": os.getpid(),
        "libraries": _libraries(),
        "project": str(PROJECT_FOLDER),
    }
    return subprocess.Popen(  # noqa: S603 - the command is ours; what it opens is not, hence all this
        isolated_python("worker.sandbox.launcher", json.dumps(specification)),
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        cwd=workdir,
        env=_environment(workdir, temporary) | env,
        close_fds=True,
        pass_fds=() if event_fd is None else (event_fd,),
        start_new_session=True,
        umask=0o077,
    )


def _environment(workdir: Path, temporary: Path) -> dict[str, str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(workdir),
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reports to its makers unless told otherwise before its import
        "PYDANTIC_DISABLE_PLUGINS": "__all__",  # it would look for some among all packages, 25 ms a process
    }
    if str(PROJECT_FOLDER) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        environment["PYTHONPATH"] = str(PROJECT_FOLDER)
    return environment | {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}


def _libraries() -> list[str]:
    """The folders that Python and its packages are read from; not the checkout, which may hold data and secrets."""
    own = [PROJECT_FOLDER / package for package in ("app", "worker")]
    found = [sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *own]
    return sorted({str(path) for path in found})


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the child and everything it started, at once, and reap it. Does nothing to one that was reaped before.

    A child that ends by itself takes its own children along, so nothing is left to kill then.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def terminate(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Ask the child to stop by SIGTERM, wait up to `grace_seconds`, and then end it as `kill_group` does."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    kill_group(process)
