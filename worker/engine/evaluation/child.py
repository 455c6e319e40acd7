"""Probes run in processes of their own: a fresh process is the only honest place to measure memory and loading.

A probe is a module `worker.engine.evaluation.<name>` with `main()`; it is told what to do by one JSON file and answers
by another. It dies when the process that started it dies. Those that measure neither memory nor loading are forked from
a process that has their libraries: see `nursery`.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Protocol, TypeVar

from pydantic import BaseModel

from app.processes import die_with_parent, tied_command
from worker.engine.evaluation import nursery
from worker.engine.evaluation.nursery import the_nursery
from worker.engine.faults import NO_ROOM, OutOfMemory, UserFault, is_disk_full, is_out_of_memory

SOURCE_ROOT = Path(__file__).resolve().parents[3]
SHORTEST_LIMIT_SECONDS = 30.0
LOOK_SECONDS = 0.5
# What dies is started once more: its end may have been the machine's doing.
STARTS = 2
# With less than this on the disk, any other end is taken for that too: what reads a file that the runtime had no room
# for, a profile for one, meets half of it.
LEAST_ROOM_BYTES = 1 << 20
# Probes multiply no matrices of their own, and a library without the threads that it wants ends the process.
FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
# A probe measures for a part of the budget only: one that is still at it when all is over will not end with more.
NO_END = (
    "Run the model once on a sample in onnxruntime, with as many threads: where a call does not end, mend the model; "
    "where it takes minutes, give smaller `target.shapes` or a larger `budget_seconds`."
)
Request = TypeVar("Request", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)


class MeasurementFailed(UserFault):
    code, title = "measurement_failed", "The model could not be measured"


class ProbeFault(BaseModel):
    """What a probe answers instead of a result."""

    code: str
    title: str
    detail: str
    remedy: str | None = None


class ProbeDied(MeasurementFailed):
    """It ended without an answer, by itself."""


class _Foreign(UserFault):
    """A fault met in a probe, with the code it had there."""

    def __init__(self, fault: ProbeFault) -> None:
        super().__init__(fault.detail, fault.remedy)
        self.code = fault.code  # type: ignore[misc]  # the class is known in the other process only
        self.title = fault.title  # type: ignore[misc]  # as above


@dataclass(frozen=True)
class Bounds:
    """Where a probe writes, and how long it may take; `waiting` is told the seconds gone, now and then."""

    folder: Path
    limit_seconds: float
    waiting: Callable[[float], None] = lambda _seconds: None


def run_probe(
    name: str, request: BaseModel, answer: type[Answer], bounds: Bounds, package: str = "worker.engine.evaluation"
) -> Answer:
    """Run the module `name` of `package` in a fresh process; in a second one where the first dies without an answer.

    Raises:
        UserFault: what the probe met; `OutOfMemory` where the kernel killed it; `MeasurementFailed` where it took
            longer than its limit (at least 30) or died otherwise, twice.
        OSError: ENOSPC, where there is no room to write on.

    """
    environment = {**os.environ, **FEW_THREADS, "PYTHONPATH": str(SOURCE_ROOT)}
    module = f"{package}.{name}"
    if module in nursery.LOADED:
        start = partial(_fork, module, environment)
    else:
        start = partial(_spawn, [sys.executable, "-P", "-m", module], [str(os.getpid())], environment)
    return _ask(name, start, (request, answer), bounds)


def run_script(script: Path, request: BaseModel, answer: type[Answer], bounds: Bounds) -> Answer:
    """Run a file in a fresh process that knows nothing of Lathe: no path of ours, and ours is not imported.

    It is given two files, for request and answer, and writes `{"answer": ...}` into the second.

    Raises:
        UserFault: as `run_probe`.

    """
    environment = {name: value for name, value in {**os.environ, **FEW_THREADS}.items() if name != "PYTHONPATH"}
    start = partial(_spawn, tied_command([sys.executable, "-P", str(script)]), [], environment)
    return _ask(script.stem, start, (request, answer), bounds)


class _Child(Protocol):
    """A probe that runs: what is used here of `subprocess.Popen`."""

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


# From the two files, where the probe works, and the file for what it prints.
_Start = Callable[[list[str], Path, Path], _Child]


def _spawn(
    command: list[str], after: list[str], environment: dict[str, str], files: list[str], folder: Path, output: Path
) -> _Child:
    with output.open("ab") as printed:
        return subprocess.Popen(  # noqa: S603 - our own module, by an absolute interpreter
            [*command, *files, *after],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            cwd=folder,
            env=environment,
        )


def _fork(module: str, environment: dict[str, str], files: list[str], folder: Path, output: Path) -> _Child:
    own = the_nursery(environment)
    try:
        return own.start(module, files, folder, output)
    except OSError as error:
        raise ProbeDied(f"The process that starts probes ended: {error}", None) from error


def _ask(name: str, start: _Start, exchanged: tuple[BaseModel, type[Answer]], bounds: Bounds) -> Answer:
    until = time.monotonic() + bounds.limit_seconds
    for _ in range(STARTS - 1):
        with suppress(ProbeDied):
            return _ask_once(name, start, exchanged, bounds)
        bounds = replace(bounds, limit_seconds=until - time.monotonic())
    return _ask_once(name, start, exchanged, bounds)


def _ask_once(name: str, start: _Start, exchanged: tuple[BaseModel, type[Answer]], bounds: Bounds) -> Answer:
    folder = bounds.folder
    folder.mkdir(parents=True, exist_ok=True)
    asked, answered = (folder / "request.json").resolve(), (folder / "answer.json").resolve()
    output = (folder / "output.txt").resolve()
    request, answer = exchanged
    asked.write_text(request.model_dump_json())
    output.write_bytes(b"")
    child = start([str(asked), str(answered)], folder.resolve(), output)
    try:
        code = _wait(child, name, bounds)
    except BaseException:
        child.kill()  # whatever ends the waiting, nobody waits for the rest
        child.wait()
        raise
    if code == -signal.SIGKILL:
        raise OutOfMemory(f"The process that measured ({name}) was killed.", "Give the worker more memory.")
    if not answered.exists():
        tail = output.read_text(errors="replace")[-500:]
        if code == NO_ROOM or is_disk_full(RuntimeError(tail)) or disk_usage(folder).free < LEAST_ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        raise ProbeDied(f"Measuring ({name}) ended with status {code}: {tail}", None)
    content = json.loads(answered.read_text())
    if "fault" in content:
        raise _Foreign(ProbeFault.model_validate(content["fault"]))
    return answer.model_validate(content["answer"])


def _wait(child: _Child, name: str, bounds: Bounds) -> int:
    started = time.monotonic()
    limit = max(bounds.limit_seconds, SHORTEST_LIMIT_SECONDS)
    while True:
        try:
            return child.wait(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired as error:
            gone = time.monotonic() - started
            if gone > limit:
                raise MeasurementFailed(f"Measuring ({name}) did not end within {limit:.0f} s.", NO_END) from error
            bounds.waiting(gone)


def serve_probe(request: type[Request], probe: Callable[[Request], BaseModel]) -> None:
    """The child's side: die with the parent, read, measure, answer."""
    # A supervisor that is killed cannot tell its runner's children.
    die_with_parent(int(sys.argv[3]))
    asked, answered = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        content = _answer(request.model_validate_json(asked.read_text()), probe)
        partial = answered.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(answered)
    except Exception as error:
        if is_disk_full(error):
            os._exit(NO_ROOM)  # what is buffered for the same disk must not decide how this ends
        raise


def _answer(request: Request, probe: Callable[[Request], BaseModel]) -> dict[str, object]:
    try:
        return {"answer": probe(request).model_dump(mode="json")}
    except UserFault as error:
        return {"fault": error.fault().model_dump()}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fault = OutOfMemory("Measuring needs more memory than there is.", "Give the worker more memory.")
        return {"fault": fault.fault().model_dump()}
