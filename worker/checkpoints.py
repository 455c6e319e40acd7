"""Checkpoints of a job on their way: from a runner that may die, into storage, and back to the next attempt.

A runner holds no credentials and is not trusted: it leaves a file and says its name. The file is moved to where the
runner cannot reach before it is looked at, and what comes back is believed only with the hash it had. Nothing that goes
wrong here ends a job: training then begins anew, as if there were no checkpoint.
"""

import contextlib
import hashlib
import os
import stat
import threading
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

from app.database import DATABASE_AWAY, Database
from app.errors import LatheError
from app.jobs import lease
from app.jobs.checkpoints import StoredCheckpoint, checkpoints_of, remember
from app.jobs.lease import Claim, Progress
from app.storage import Storage
from worker.runner.contract import CHECKPOINT_FOLDER

# How long the end of an attempt waits for a checkpoint that is on its way.
CLOSING_SECONDS = 30.0
log = structlog.get_logger()


class Refused(Exception):
    """The runner left something that is no checkpoint."""


class Keeper:
    """Takes checkpoints out of the folder of one attempt, in a thread; of several of a step that wait, the newest."""

    def __init__(self, database: Database, storage: Storage, claim: Claim, folder: Path) -> None:
        self._database, self._storage, self._claim, self._folder = database, storage, claim, folder
        self._changed = threading.Condition()
        self._waiting: dict[int, str] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"checkpoints-{claim.job_id}", daemon=True)
        self._thread.start()

    def offer(self, step: int, name: str) -> None:
        """The runner says that it left `name` for `step`. Does not block."""
        with self._changed:
            self._waiting[step] = name
            self._changed.notify()

    def close(self) -> None:
        """What waits is let go; what is on its way may arrive."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSING_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing and not self._waiting:
                    return
                step, name = self._waiting.popitem()
            try:
                self._keep(step, name)
            except (Refused, LatheError, OSError, *DATABASE_AWAY) as error:
                log.warning("checkpoint_not_kept", job_id=str(self._claim.job_id), step=step, error=repr(error)[:200])

    def _keep(self, step: int, name: str) -> None:
        path = self._taken(name)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            self._storage.ensure_room(path.stat().st_size)
            stored = StoredCheckpoint(step, uuid7(), path.stat().st_size, digest)
            self._storage.store(path, stored.key)
        finally:
            path.unlink(missing_ok=True)
        replaced = self._record(stored)
        for key in replaced:
            self._storage.delete_sync(key)

    def _taken(self, name: str) -> Path:
        """The file, moved out of the runner's reach, together with those of earlier saves that nobody asked for."""
        target = self._folder.parent / f"checkpoint-{threading.get_ident()}"
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._folder / CHECKPOINT_FOLDER, flags)
        try:
            os.rename(name, target, src_dir_fd=descriptor)
            step, number = _numbers(name)
            for other in os.listdir(descriptor):  # noqa: PTH208 - by descriptor: a path may lead elsewhere by now
                if other.endswith(".tar") and _numbers(other)[0] == step and _numbers(other)[1] < number:
                    os.unlink(other, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        about = target.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            with contextlib.suppress(OSError):
                target.unlink()
            raise Refused(f"{name} is no plain file")
        return target

    def _record(self, stored: StoredCheckpoint) -> list[str]:
        """Keys of files that are garbage now: the one before, or this one where the lease is somebody else's."""
        with self._database.session_scope() as session:
            if lease.record(session, self._claim, Progress(), []) is None:
                return [stored.key]
            before = [one.key for one in checkpoints_of(session, self._claim.job_id) if one.step == stored.step]
            remember(session, self._claim.job_id, stored)
            return before


def _numbers(name: str) -> tuple[int, int]:
    """Step and number of a file that a runner left; (-1, 0) of any other."""
    step, _, number = name.removesuffix(".tar").partition("-")
    return (int(step), int(number)) if step.isdecimal() and number.isdecimal() else (-1, 0)


def bring_checkpoints(database: Database, storage: Storage, claim: Claim, folder: Path) -> dict[int, str]:
    """Those that earlier attempts left, as files in the `folder` of a runner: their paths within it, by step."""
    with database.session_scope() as session:
        known = checkpoints_of(session, claim.job_id)
    brought = {}
    for one in known:
        path = folder / "inputs" / f"checkpoint-{one.step}.tar"
        try:
            storage.fetch(one.key, path)
            with path.open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").digest() == one.sha256
        except (LatheError, OSError) as error:
            log.warning("checkpoint_not_brought", job_id=str(claim.job_id), step=one.step, error=repr(error)[:200])
            intact = False
        if intact:
            brought[one.step] = str(path.relative_to(folder))
        else:
            path.unlink(missing_ok=True)
    return brought
