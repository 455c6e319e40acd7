"""Checkpoints of a job on their way: from a runner that may die, into storage, and back to the next attempt.

What comes back is believed only with the hash it had. Nothing that goes wrong here ends a job: training then begins
anew, as if there were no checkpoint.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

from app.database import Database
from app.errors import LatheError
from app.jobs import lease
from app.jobs.checkpoints import StoredCheckpoint, checkpoints_of, remember
from app.jobs.lease import Claim, Progress
from app.storage import Storage
from worker.bringing import fetch_verified, spare_bytes
from worker.carrying import CLOSING_SECONDS, Carrier, opened, remove_others, take
from worker.runner.contract import CHECKPOINT_FOLDER

log = structlog.get_logger()


class Keeper:
    """Takes checkpoints out of the folder of one attempt; of several of a step that wait, the newest."""

    def __init__(self, database: Database, storage: Storage, claim: Claim, folder: Path) -> None:
        self._database, self._storage, self._claim, self._folder = database, storage, claim, folder
        self._carrier: Carrier[int, str] = Carrier("checkpoint", claim.job_id, self._keep)

    def offer(self, step: int, name: str) -> None:
        """The runner says that it left `name` for `step`. Does not block."""
        self._carrier.offer(step, name)

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """What is on its way may arrive, for so long."""
        self._carrier.close(seconds)

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
        step, number = _numbers(name)
        with opened(self._folder / CHECKPOINT_FOLDER) as descriptor:
            take(descriptor, name, target)
            remove_others(
                descriptor,
                lambda other: other.endswith(".tar") and _numbers(other)[0] == step and _numbers(other)[1] < number,
            )
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


def bring_checkpoints(
    database: Database, storage: Storage, claim: Claim, folder: Path, going_on: Callable[[], None]
) -> dict[int, str]:
    """Those that earlier attempts left, as files in the `folder` of a runner: their paths within it, by step. One that
    the disk has no spare room for is left out. Raises whatever `going_on` does, which is asked while they are copied.
    """
    with database.session_scope() as session:
        known = checkpoints_of(session, claim.job_id)
    brought = {}
    for one in known:
        path = folder / "inputs" / f"checkpoint-{one.step}.tar"
        if _is_brought(storage, claim, one, path, going_on):
            brought[one.step] = str(path.relative_to(folder))
        else:
            path.unlink(missing_ok=True)
    return brought


def _is_brought(
    storage: Storage, claim: Claim, one: StoredCheckpoint, path: Path, going_on: Callable[[], None]
) -> bool:
    try:
        if one.size_bytes <= spare_bytes(path.parent):
            return fetch_verified(storage, one.key, path, one.sha256, going_on)
        reason = "there is no spare room for it"
    except (LatheError, OSError) as error:
        reason = repr(error)[:200]
    log.warning("checkpoint_not_brought", job_id=str(claim.job_id), step=one.step, error=reason)
    return False
