"""Hostile files before the runner's own code in its sandbox, and what becomes of each.

A runner for each file takes a second to start; here one goes through many, each in a folder of its own, and another
goes on behind a file that ends it. As in service, what ends a runner is told by `worker.failures`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import onnx

from app.config import RunnerSettings
from app.jobs.states import JobKind
from app.recipes.request import OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker.runner.hostile.case import OCTETS
from tests.worker.runner.jobs import INPUT, MEMORY_BYTES, prepare
from worker.failures import death, out_of_time
from worker.runner.contract import (
    BEST_FOLDER,
    CHECKPOINT_FOLDER,
    JOB_FILE,
    OUTPUT_FOLDER,
    PIECE_FOLDER,
    RESULT_FILE,
    InputFile,
    RunnerJob,
    RunnerResult,
)
from worker.sandbox import Limits, kill_group, memory_group, spawn

LIMITS = Limits(memory_bytes=2 * MEMORY_BYTES, file_bytes=2 << 30, processes=64)
BUDGET_SECONDS = 5.0
# Between two results. A job is ended after its budget and the grace; an inspection has more, and takes far less.
SILENCE_SECONDS = BUDGET_SECONDS + RunnerSettings().grace_seconds
START_SECONDS = 20.0
"""More, until the first: libraries are loaded."""
LOOK_SECONDS = 0.02
RUN_ALL = """
import sys
from pathlib import Path
from worker.runner.__main__ import run_job, write_result
from worker.runner.contract import JOB_FILE, RunnerJob
from worker.runner.events import Events
{preparation}
for name in sys.argv[1:]:
    folder = Path(name).resolve()
    job = RunnerJob.model_validate_json((folder / JOB_FILE).read_bytes())
    write_result(run_job(job, folder, Events()), folder)
"""
CANARY = "canary"
RESULT = "a result"


@dataclass(frozen=True)
class Upload:
    """A file as it would be uploaded."""

    kind: JobKind
    media_type: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """`code` is that of the refusal, or `RESULT`; `clear` where it is no fault of ours and says what to do."""

    code: str
    clear: bool
    detail: str = ""


def inspect_all(uploads: Sequence[Upload], folder: Path, preparation: str = "") -> list[Outcome]:
    """The outcome of each, in order, from runners in the sandbox whose work folder is `folder`.

    `preparation` is source that runs in each runner before the first file.
    """
    folders = [folder / str(number) for number in range(len(uploads))]
    for upload, own in zip(uploads, folders, strict=True):
        own.mkdir(mode=0o700)
        upload.write(own / INPUT)
        prepare(upload.kind, own, upload.media_type)
    return _outcomes([upload.kind for upload in uploads], folders, folder, preparation)


def optimize_all(models: Sequence[bytes], folder: Path, silence_seconds: float = SILENCE_SECONDS) -> list[Outcome]:
    """The same of short jobs on these models, with random input; each has so long, and is ended then."""
    folders = [folder / str(number) for number in range(len(models))]
    for content, own in zip(models, folders, strict=True):
        own.mkdir(mode=0o700)
        for name in (OUTPUT_FOLDER, CHECKPOINT_FOLDER, BEST_FOLDER, PIECE_FOLDER):
            (own / name).mkdir()
        (own / INPUT).write_bytes(content)
        file = InputFile(path=INPUT, media_type=OCTETS, sha256="0" * 64, size_bytes=len(content), name="bomb")
        metric = {"name": "agreement", "output": onnx.load_model_from_string(content).graph.output[0].name}
        body = {"model_id": str(uuid4()), "recipe": [{"pass": "optimize_graph"}], "metric": metric}
        job = RunnerJob(
            kind=JobKind.OPTIMIZE,
            model=file,
            request=OptimizeRequest.model_validate(body),
            threads=1,
            timing_rounds=TIMING_ROUNDS,
            round_seconds=ROUND_SECONDS,
            budget_seconds=BUDGET_SECONDS,
            memory_bytes=MEMORY_BYTES,
        )
        (own / JOB_FILE).write_text(job.model_dump_json(by_alias=True))
    return _outcomes([JobKind.OPTIMIZE] * len(models), folders, folder, silence_seconds=silence_seconds)


def _outcomes(
    kinds: Sequence[JobKind],
    folders: list[Path],
    folder: Path,
    preparation: str = "",
    silence_seconds: float = SILENCE_SECONDS,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while len(outcomes) < len(folders):
        begun = len(outcomes)
        status = _run(folders[begun:], folder, preparation, silence_seconds)
        for own in folders[begun:]:
            if not (own / RESULT_FILE).exists():
                break
            outcomes.append(_read(own))
        if status != 0 and len(outcomes) < len(folders):
            outcomes.append(_ended(kinds[len(outcomes)], status, silence_seconds))
    return outcomes


def _run(folders: list[Path], folder: Path, preparation: str, silence_seconds: float) -> int | None:
    """How a runner that goes through these ended; None where it was ended for its silence."""
    source = RUN_ALL.format(preparation=preparation)
    command = [sys.executable, "-P", "-c", source, *map(str, folders)]
    with memory_group(LIMITS.memory_bytes) as group, (folder / "stderr").open("wb") as stderr:
        process = spawn(
            command,
            workdir=folder,
            limits=LIMITS,
            event_fd=None,
            env={},
            stderr=stderr,
            group=None if group is None else group.folder,
        )
        try:
            return _attend(process, folders, silence_seconds)
        finally:
            kill_group(process)


def _attend(process: subprocess.Popen[bytes], folders: list[Path], silence_seconds: float) -> int | None:
    done, heard = 0, time.monotonic()
    while process.poll() is None:
        while done < len(folders) and (folders[done] / RESULT_FILE).exists():
            done, heard = done + 1, time.monotonic()
        if time.monotonic() - heard > silence_seconds + (0 if done else START_SECONDS):
            return None
        time.sleep(LOOK_SECONDS)
    return process.returncode


def _read(folder: Path) -> Outcome:
    result = RunnerResult.model_validate_json((folder / RESULT_FILE).read_bytes())
    if result.fault is None:
        return Outcome(RESULT, result.outcome == "succeeded")
    fault = result.fault
    clear = not result.retryable and fault.code != "internal_error" and bool(fault.detail and fault.remedy)
    return Outcome(fault.code, clear, fault.detail)


def _ended(kind: JobKind, status: int | None, silence_seconds: float) -> Outcome:
    if status is None:
        fault, retryable = out_of_time(kind, silence_seconds), kind is not JobKind.OPTIMIZE
    else:
        fault, retryable = death(kind, status)
    return Outcome(fault.code, not retryable, fault.detail)


@contextmanager
def canary(folder: Path) -> Iterator[Callable[[], bool]]:
    """A file outside the work folders in `folder`; yields whether it, and what is beside it, is as it was."""
    path = folder / CANARY
    path.write_bytes(bytes(range(256)) * 4)

    def facts() -> tuple[object, ...]:
        found = path.lstat()
        around = sorted(one.name for one in folder.iterdir())
        return path.read_bytes(), found.st_mode, found.st_uid, found.st_nlink, found.st_mtime, around

    before = facts()
    yield lambda: facts() == before
