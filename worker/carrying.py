"""Taking what a runner offers while it works.

A runner holds no credentials and is not trusted: it leaves a file and says its name. The file is moved to where the
runner cannot reach before it is looked at. Whatever goes wrong here costs what was offered, and never the job.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar
from uuid import UUID

import structlog

from worker.threads import thread_of_attempt

# How long the end of an attempt waits for all that is on its way.
CLOSING_SECONDS = 30.0
log = structlog.get_logger()

KeyT = TypeVar("KeyT")
OfferT = TypeVar("OfferT")


class Refused(Exception):
    """The runner left something else than it said."""


class Carrier(Generic[KeyT, OfferT]):
    """Carries offers in a thread, one after another; of several under one key that wait, the newest."""

    def __init__(self, what: str, job_id: UUID, carry: Callable[[KeyT, OfferT], None]) -> None:
        self._what, self._carry = what, carry
        self._changed = threading.Condition()
        self._waiting: dict[KeyT, OfferT] = {}
        self._closing = False
        self._thread = thread_of_attempt(self._work, f"{what}-{job_id}")
        self._thread.start()

    def offer(self, key: KeyT, offer: OfferT) -> None:
        """Does not block."""
        with self._changed:
            self._waiting[key] = offer
            self._changed.notify()

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """What was offered may arrive, for so long; nothing more is taken after that."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(max(0.0, seconds))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing and not self._waiting:
                    return
                key, offer = self._waiting.popitem()
            try:
                self._carry(key, offer)
            except Exception as error:  # one that is lost is no reason to take none after it
                log.warning("offer_not_kept", what=self._what, key=key, error=repr(error)[:200])


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a runner's folder: by its path it may lead elsewhere a moment later. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int, name: str, target: Path) -> None:
    """Move a file out of the folder of that descriptor. Raises Refused where it is no plain one, and OSError."""
    os.rename(name, target, src_dir_fd=descriptor)
    about = target.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        with contextlib.suppress(OSError):
            target.unlink()
        raise Refused(f"{name} is no plain file")


def remove_others(descriptor: int, superseded: Callable[[str], bool]) -> None:
    """Remove the files of that folder that nobody will ask for."""
    for name in os.listdir(descriptor):
        if superseded(name):
            os.unlink(name, dir_fd=descriptor)
