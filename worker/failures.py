"""How attempts fail, as users are told."""

import errno
import signal

from app.errors import Fault, OurFault, StorageFull, Unavailable
from app.jobs.states import JobKind
from worker.engine.faults import FULL, NO_ROOM, OutOfMemory
from worker.runner.disk import disk_full

SUBMIT_AGAIN = "The worker's log says more; submit the job again when the cause is gone."
SHORTAGES = FULL | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO}
# By a library that lost its way in a file; SIGKILL comes from elsewhere.
CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
)
MORE_DISK = "Give workers a larger disk for LATHE_WORK_FOLDER; then submit the job, or upload the file, again."
UPLOAD_AGAIN = "Upload the same file again: that stores its bytes anew, under the same id."


class JobFailed(Exception):
    """The attempt failed; `retryable` where another could end otherwise; `passing` where what it lacked may be there in
    a minute, as others took it.
    """

    def __init__(
        self, fault: Fault, *, retryable: bool, passing: bool = False, peak_memory_bytes: int | None = None
    ) -> None:
        super().__init__(fault.detail)
        self.fault = fault
        self.retryable = retryable
        self.passing = passing
        self.peak_memory_bytes = peak_memory_bytes


class NotFetched(Exception):
    """What a job needs could not be brought, as the cause says, and may be elsewhere or later: nothing has run."""


class UnreadableRequest(Exception):
    """An API of another version than this worker accepted the job, and its request cannot be read here."""


class ResultNotStored(Exception):
    """The run is over, and storage does not take what it made; the cause says why."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether this worker, and not the job, is what failed: no room, no files left to open, storage away."""
    return isinstance(error, StorageFull | Unavailable) or (isinstance(error, OSError) and error.errno in SHORTAGES)


def not_stored(error: BaseException | None) -> Fault:
    """Of a job that ran to its end, again and again, and whose result found no place."""
    full = isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in FULL)
    detail = "has no room for" if full else "does not take"
    return ours(
        OurFault.STORAGE_FULL if full else OurFault.UNAVAILABLE,
        f"The job ran to its end several times, and storage {detail} its result.",
        "Free some space, or see why storage does not answer; then submit the job again.",
    )


def ours(code: OurFault, detail: str, remedy: str = SUBMIT_AGAIN) -> Fault:
    return Fault(code=code, title="Something went wrong on our side", detail=detail, remedy=remedy)


def out_of_time(kind: JobKind, seconds: float) -> Fault:
    """A budget is the user's to give; the time of an inspection is not, nor what else kept the machine busy."""
    if kind is not JobKind.OPTIMIZE:
        return ours(
            OurFault.INSPECTION_TIME_LIMIT,
            f"The inspection was stopped after {seconds:.0f} s.",
            "Upload the file again: that inspects it anew. LATHE_RUNNER_INSPECT_SECONDS sets the time it may take.",
        )
    return Fault(
        code="time_limit",
        title="The job took too long",
        detail=f"The job was stopped after {seconds:.0f} s, its budget and the grace beyond it.",
        remedy="Give it a larger `budget_seconds`, a shorter recipe or less data.",
    )


def out_of_memory(memory_bytes: int) -> Fault:
    """Ended by the kernel: where other processes took memory, that is less than the runner's own limit."""
    return OutOfMemory(
        f"The kernel ended the job for lack of memory; it was given {memory_bytes:,} bytes, unless others took them.",
        "Use a smaller model or fewer samples, or give the worker more memory.",
    ).fault()


def too_much_written(most_bytes: int, most_files: int, most_levels: int) -> Fault:
    """Of all its files together."""
    return Fault(
        code=OurFault.TOO_MUCH_WRITTEN,
        title="The job writes more than it may",
        detail=f"The job left more than {most_bytes:,} bytes in its folder, or {most_files:,} files, "
        f"or {most_levels} folders in one another.",
        remedy="Use a smaller model or fewer samples, or raise LATHE_RUNNER_DISK_BYTES.",
    )


def death(kind: JobKind, status: int) -> tuple[Fault, bool]:
    """What the end of a runner without a result says, and whether another attempt could end otherwise.

    An inspection does nothing but read the file, and reads it the same each time.
    """
    if status == NO_ROOM:
        return disk_full(), True
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if kind is not JobKind.OPTIMIZE and -status in CRASHES:
        return _crashed(kind, how), False
    return ours(OurFault.RUNNER_CRASHED, f"The runner ended without a result ({how})."), True


def _crashed(kind: JobKind, how: str) -> Fault:
    subject, read_by = ("model", "onnxruntime") if kind is JobKind.INSPECT_MODEL else ("dataset", "numpy")
    return Fault(
        code=f"{subject}_crashes_reader",
        title=f"The {subject} makes the libraries that read it crash",
        detail=f"The process that inspected the {subject} was ended by {how}, in a library that read it.",
        remedy=f"Open the file with {read_by} yourself, make it anew where that fails as well, and upload that one.",
    )
