"""The best that a search has found so far: an artifact while the job runs, and what is left of it if nothing else is.

A job has one at most. It is replaced by what is better, in this attempt or in a later one; what the job delivers in
the end takes its place.
"""

import hashlib
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import stamina
from sqlalchemy import select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.artifacts.tables import ArtifactRow, provisional
from app.blobs.tables import storage_key
from app.database import DATABASE_AWAY, Database
from app.jobs import lease
from app.jobs.lease import Claim, Progress
from app.jobs.states import JobKind
from app.storage import Storage
from worker.carrying import CLOSING_SECONDS, Carrier, opened, remove_others, take
from worker.publishing import StoredOutput, artifact_row, as_json, find_copies, keep_output, without_bytes
from worker.runner.contract import BEST_FOLDER, OUTPUT_FOLDER, Best, OutputFile

# Of an attempt; each leaves a file behind that the collector removes in its time, and a runner could fill the disk.
MAX_NOMINATIONS = 200


class NotBetter(Exception):
    """There is one that gains as much, or the lease is somebody else's: nothing was written."""


class Nominations:
    """Takes candidates out of the folder of one attempt; of several that wait, the newest, which is the best."""

    def __init__(self, database: Database, storage: Storage, claim: Claim, folder: Path) -> None:
        self._database, self._storage, self._claim, self._folder = database, storage, claim, folder
        self._numbers = itertools.count()
        self._carrier: Carrier[UUID, Best] = Carrier("best", claim.job_id, self._keep)

    def offer(self, best: Best) -> None:
        """The runner says that it left a better one. Does not block."""
        if self._claim.kind is JobKind.OPTIMIZE and next(self._numbers) < MAX_NOMINATIONS:
            self._carrier.offer(self._claim.job_id, best)

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """What is on its way may arrive, for so long."""
        self._carrier.close(seconds)

    def _keep(self, _: UUID, best: Best) -> None:
        with self._taken(best.file) as path:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            size = path.stat().st_size
            self._storage.ensure_room(size)
            output = OutputFile(
                path=f"{OUTPUT_FOLDER}/{best.file_name}",
                kind="model",
                file_name=best.file_name,
                media_type=best.media_type,
            )
            stored = StoredOutput(output, uuid7(), digest, size)
            key = storage_key(self._claim.workspace_id, stored.blob_id)
            self._storage.store(path, key)
        for attempt in stamina.retry_context(on=DATABASE_AWAY, attempts=None, timeout=CLOSING_SECONDS, wait_max=2.0):
            with attempt:
                kept = self._record(stored, best)
        # Not where the database was away: a commit whose answer was lost may have it, and what the job delivered since
        # may lie there. The collector knows.
        if not kept and attempt.num == 1:
            self._storage.delete_sync(key)

    @contextmanager
    def _taken(self, name: str) -> Iterator[Path]:
        """A copy that the runner cannot change: the file that it left may still be open there."""
        number = int(Path(name).stem)
        moved, copied = (self._folder.parent / f"best-{uuid7()}" for _ in range(2))
        try:
            with opened(self._folder / BEST_FOLDER) as descriptor:
                take(descriptor, name, moved)
                remove_others(descriptor, lambda other: _number(other) < number)
            shutil.copyfile(moved, copied)
            moved.unlink()
            yield copied
        finally:
            moved.unlink(missing_ok=True)
            copied.unlink(missing_ok=True)

    def _record(self, stored: StoredOutput, best: Best) -> bool:
        """Whether its file is what a row refers to now."""
        with self._database.session_scope() as session:
            copies = find_copies(session, self._claim, [stored])
        lost = without_bytes(self._storage, self._claim, copies)
        try:
            with self._database.session_scope() as session:
                return self._replace(session, stored, best, lost)
        except NotBetter:
            return False

    def _replace(self, session: Session, stored: StoredOutput, best: Best, lost: set[UUID]) -> bool:
        """Raises NotBetter: the caller must roll back."""
        # Blob before job, as in publishing: so neither waits for the other.
        blob_id = keep_output(session, self._claim, stored, lost)
        before = session.scalar(select(ArtifactRow).where(provisional(self._claim.job_id)))
        if before is not None and before.blob_id == stored.blob_id:
            return True  # by a commit whose answer was lost
        if before is not None and before.gain is not None and before.gain >= best.gain:
            raise NotBetter
        row = artifact_row(self._claim, stored, blob_id)
        row.id, row.trial, row.gain = uuid7(), as_json(best.trial), best.gain
        # With all that was measured: its own event is written a moment later, and may never be.
        event = {
            "type": "best",
            "trial": row.trial,
            "artifact_id": str(row.id),
            "file_name": row.file_name,
            "sha256": row.sha256.hex(),
        }
        # Only here is it known whether the job is still ours, and nobody can end it before this is committed.
        if lease.record(session, self._claim, Progress(), [event]) is None:
            raise NotBetter
        if before is not None:
            session.delete(before)
            session.flush()
        session.add(row)
        return blob_id == stored.blob_id


def _number(name: str) -> int:
    """Of a file that a runner left; that of any other is never before another."""
    stem = Path(name).stem
    return int(stem) if stem.isdecimal() else MAX_NOMINATIONS
