"""What can go wrong in the runner, told apart by whose fault it is.

A `UserFault` is the user's: it is reported with its code and remedy and never tried again. `Retryable` is ours.
Anything else that is raised is a bug of ours, reported as `internal_error`.
"""

import errno
import os
from typing import ClassVar

from app.errors import Fault, OurFault

# A hostile file may name its parts with megabytes.
MAX_DETAIL_CHARACTERS = 2000
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# How a process of ours ends that found no room to write on: it cannot say so in a file.
NO_ROOM = os.EX_TEMPFAIL
# What libraries say who raise something else than MemoryError.
ALLOCATION_FAILURES = (
    "Failed to allocate memory",
    "bad_alloc",
    "Cannot allocate memory",
    "bad allocation",
    "CUDA out of memory",
)


class UserFault(Exception):
    """A file or a request that cannot be served. Subclasses are nouns, one per kind; each fixes its code and title."""

    code: ClassVar[str] = "unusable_input"
    title: ClassVar[str] = "The input cannot be used"

    def __init__(self, detail: str, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy

    def fault(self) -> Fault:
        """The fault as the API shows it."""
        detail = self.detail
        if len(detail) > MAX_DETAIL_CHARACTERS:
            detail = f"{detail[:MAX_DETAIL_CHARACTERS]}..."
        # Names of files and tensors need not be valid Unicode; JSON must be.
        detail = detail.encode("utf-8", "backslashreplace").decode()
        return Fault(code=self.code, title=self.title, detail=detail, remedy=self.remedy)


class OutOfMemory(UserFault):
    code, title = OurFault.OUT_OF_MEMORY, "The job needs more memory than it was given"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, here or within a library."""
    return isinstance(error, MemoryError | OutOfMemory) or any(sign in str(error) for sign in ALLOCATION_FAILURES)


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room to write on, here or within a library."""
    by_number = isinstance(error, OSError) and error.errno in FULL
    return by_number or any(os.strerror(number) in str(error) for number in FULL)


class Retryable(Exception):
    """A fault of ours that another attempt may not meet again."""
