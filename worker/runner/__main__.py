"""The child process that opens untrusted files: `python -m worker.runner WORKDIR`.

Reads `job.json`, leaves `result.json`. The exit code is 0 where a result was written, whatever it says.
"""

import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.errors import Fault, OurFault
from app.jobs.states import JobKind
from worker.engine.evaluation.nursery import close_nursery
from worker.engine.faults import NO_ROOM, OutOfMemory, Retryable, UserFault, is_disk_full, is_out_of_memory
from worker.engine.model_faults import ExcessiveNesting
from worker.runner.contract import JOB_FILE, MAX_RESULT_BYTES, RESULT_FILE, RunnerJob, RunnerResult
from worker.runner.disk import disk_full, is_oversized, make_room, oversized_file
from worker.runner.events import Events

LONG_CHAINS = "Chains of nodes in the model, or of what its shapes are computed from, are longer than can be followed."
SHORTER_CHAINS = "Simplify it first, for example with the pass `optimize_graph`."
MORE_MEMORY = "Use a smaller model or fewer samples, or give the service's runners more memory."


class UnwieldyResult(UserFault):
    code, title = "result_too_large", "What there is to say about the file is too long"


def main(arguments: list[str]) -> int:
    """Run the job of one work folder."""
    # A cancel: exit at once, even in the middle of a library's call, whatever the parent had set.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    workdir = Path(arguments[0])
    job = RunnerJob.model_validate_json((workdir / JOB_FILE).read_bytes())
    result = run_job(job, workdir, Events()).model_copy(update={"peak_memory_bytes": peak_memory_bytes()})
    try:
        write_result(result, workdir)
    except OSError as error:
        if not _is_written(_broken(error, job, workdir), workdir):
            os._exit(NO_ROOM)  # what is buffered for the same disk must not decide how this ends
    return 0


def run_job(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    """The result of the job, whatever happens short of the process's end."""
    try:
        return _dispatch(job, workdir, events)
    except UserFault as error:
        return RunnerResult(outcome="failed", fault=error.fault())
    except RecursionError as error:
        traceback.print_exception(error)
        return RunnerResult(outcome="failed", fault=ExcessiveNesting(LONG_CHAINS, SHORTER_CHAINS).fault())
    except Exception as error:
        return _broken(error, job, workdir)


def peak_memory_bytes() -> int:
    """Of this process, or of that child of its own which took more, forked probes included."""
    close_nursery()
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024


def write_result(result: RunnerResult, workdir: Path) -> None:
    """Write `result.json` so that a reader finds all of it or none."""
    data = result.model_dump_json(by_alias=True).encode()
    if len(data) > MAX_RESULT_BYTES:
        fault = UnwieldyResult(
            f"The result has {len(data):,} bytes; {MAX_RESULT_BYTES:,} is the most accepted.",
            "Shorten the names of inputs, outputs and operators.",
        ).fault()
        data = RunnerResult(outcome="failed", fault=fault).model_dump_json().encode()
    partial = workdir / f"{RESULT_FILE}.partial"
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(workdir / RESULT_FILE)


def _is_written(result: RunnerResult, workdir: Path) -> bool:
    """False where others filled the disk, for all that this job has given up."""
    try:
        write_result(result, workdir)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return False
    return True


def _dispatch(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    # What modules hold lives as long as this process: looking for garbage there is a seventh of the time to load them.
    gc.disable()
    run = _run_of(job)
    gc.freeze()
    gc.enable()
    return run(job, workdir, events)


def _run_of(job: RunnerJob) -> Callable[[RunnerJob, Path, Events], RunnerResult]:
    """Imports only what the kind of job needs: an inspection should not wait for the passes to load."""
    if job.kind is JobKind.INSPECT_MODEL:
        from worker.runner import inspect_model  # noqa: PLC0415 - see above

        return inspect_model.run
    if job.kind is JobKind.INSPECT_DATASET:
        from worker.runner import inspect_dataset  # noqa: PLC0415 - see above

        return inspect_dataset.run
    if job.request is not None and job.request.recipe == "auto":
        from worker.runner.search import run as search  # noqa: PLC0415 - see above

        return search.run
    from worker.runner import optimize  # noqa: PLC0415 - see above

    return optimize.run


def _broken(error: Exception, job: RunnerJob, workdir: Path) -> RunnerResult:
    """What a job without a result of its own ends in."""
    if is_disk_full(error):
        make_room(workdir)
    with suppress(OSError):  # what is printed goes to a file as well
        traceback.print_exception(error)
    if is_out_of_memory(error):
        shortage = OutOfMemory(f"The job was given {job.memory_bytes:,} bytes.", MORE_MEMORY)
        return RunnerResult(outcome="failed", fault=shortage.fault())
    if is_oversized(error):
        return RunnerResult(outcome="failed", fault=oversized_file())
    return RunnerResult(
        outcome="failed", fault=disk_full() if is_disk_full(error) else _internal(error), retryable=True
    )


def _internal(error: Exception) -> Fault:
    """Names the kind of error only: its text may hold paths, and the traceback is in the worker's log."""
    cause = "a temporary condition" if isinstance(error, Retryable) else type(error).__name__
    return Fault(
        code=OurFault.INTERNAL_ERROR,
        title="Something went wrong on our side",
        detail=f"The runner ended in {cause}.",
        remedy="It is tried again by itself; if it keeps failing, report it with the job's id.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
