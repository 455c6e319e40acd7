"""What the runner says, and does, where it may not write on."""

import errno
import resource
import shutil
from pathlib import Path

from app.errors import Fault, OurFault
from worker.engine.faults import UserFault


class OversizedFile(UserFault):
    code, title = OurFault.FILE_TOO_LARGE, "The job writes a larger file than it may"


def is_oversized(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EFBIG


def disk_full() -> Fault:
    return Fault(
        code=OurFault.DISK_FULL,
        title="The worker's disk is full",
        detail="There was no room left where LATHE_WORK_FOLDER lies, in which the worker runs its jobs.",
        remedy="Free some space there, or give it more; the job is tried again by itself, a few times.",
    )


def oversized_file() -> Fault:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    most = "its file system takes" if limit == resource.RLIM_INFINITY else f"{limit:,} bytes, which is the limit"
    return OversizedFile(
        f"The job had to write a file of more than {most}.",
        "Use a smaller model or fewer samples, or raise LATHE_RUNNER_FILE_BYTES.",
    ).fault()


def make_room(workdir: Path) -> None:
    """Give up everything that the job has written, so that what stopped it can still be said."""
    for path in workdir.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
