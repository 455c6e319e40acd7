"""Pieces of a search on their way: out of a runner's folder, into storage, and back to the next search of the same.

As with checkpoints, nothing that goes wrong here ends a job, and what comes back is believed only with the hash it had.
Bytes are all that is handled here: a piece is opened in a runner alone.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import structlog
from uuid_utils.compat import uuid7

from app.config import Settings
from app.database import Database
from app.errors import LatheError, StorageFull
from app.jobs import lease
from app.jobs.lease import Claim, Progress
from app.jobs.search_cache import StoredPiece, forget, pieces_of, remember, scope_of
from app.storage import ContentMissing, Storage
from worker.bringing import fetch_verified, spare_bytes
from worker.carrying import CLOSING_SECONDS, Carrier, Refused, opened, take
from worker.runner.contract import PIECE_FOLDER, Piece

# Of an attempt, kept at most; and brought at most, since they are carried to the runner before it begins.
MOST_PIECES = 1000
BROUGHT_BYTES = 4 << 30
log = structlog.get_logger()


def is_search(claim: Claim) -> bool:
    """Whether the job finds its recipe itself; others have nothing that a later one could go on from."""
    return claim.request is not None and claim.request["recipe"] == "auto"


def _reuses(claim: Claim) -> bool:
    """Whether the request lets it go on from earlier ones."""
    return is_search(claim) and ((claim.request or {}).get("search") or {}).get("reuse", True)


class Pieces:
    """Takes what a search has finished out of the folder of one attempt."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, claim: Claim, folder: Path) -> None:
        self._database, self._storage, self._claim, self._folder = database, storage, claim, folder
        self._left = MOST_PIECES if is_search(claim) else 0
        self._bytes_left = settings.jobs.search_cache_bytes
        self._carrier: Carrier[str, Piece] = Carrier("piece", claim.job_id, self._keep)

    def offer(self, piece: Piece) -> None:
        """The runner says that it finished something. Does not block."""
        if self._left > 0:
            self._left -= 1
            self._carrier.offer(piece.key, piece)

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """What is on its way may arrive, for so long."""
        self._carrier.close(seconds)

    def _keep(self, _: str, piece: Piece) -> None:
        path = self._folder.parent / f"piece-{uuid7()}"
        try:
            with opened(self._folder / PIECE_FOLDER) as descriptor:
                take(descriptor, piece.file, path)
            size = path.stat().st_size
            if size > self._bytes_left:
                raise Refused(f"{piece.file} is more than a workspace may keep")
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            self._storage.ensure_room(size)
            stored = StoredPiece(bytes.fromhex(piece.key), uuid7(), size, digest)
            self._storage.store(path, stored.storage_key)
        finally:
            path.unlink(missing_ok=True)
        self._bytes_left -= size
        if not self._record(stored):
            self._storage.delete_sync(stored.storage_key)

    def _record(self, stored: StoredPiece) -> bool:
        """False where the lease is somebody else's."""
        with self._database.session_scope() as session:
            if lease.record(session, self._claim, Progress(), []) is None:
                return False
            remember(session, scope_of(session, self._claim), stored)
            return True


def bring_pieces(
    database: Database, storage: Storage, claim: Claim, folder: Path, going_on: Callable[[], None]
) -> dict[str, str]:
    """What earlier searches finished, as files in the `folder` of a runner: their paths within it, by key; none where
    the job is no search, or asks for everything anew, and no more than the disk has spare room for. Raises whatever
    `going_on` does, which is asked while they are copied.
    """
    if not _reuses(claim):
        return {}
    with database.session_scope() as session:
        known = pieces_of(session, scope_of(session, claim), MOST_PIECES, min(BROUGHT_BYTES, spare_bytes(folder)))
    brought = {}
    for number, one in enumerate(known):
        path = folder / "inputs" / f"piece-{number}"
        try:
            intact = _is_brought(database, storage, one, path, going_on)
        except StorageFull:  # what others leave of the disk is the runner's: smaller ones would take it
            path.unlink(missing_ok=True)
            log.warning("pieces_not_brought", job_id=str(claim.job_id), count=len(known) - number)
            break
        if intact:
            brought[one.key.hex()] = str(path.relative_to(folder))
        else:
            path.unlink(missing_ok=True)
    return brought


def _is_brought(
    database: Database, storage: Storage, one: StoredPiece, path: Path, going_on: Callable[[], None]
) -> bool:
    """False where storage does not answer now, and where the piece is lost or damaged, and so forgotten.

    Raises StorageFull, and whatever `going_on` does.
    """
    try:
        intact = fetch_verified(storage, one.storage_key, path, one.sha256, going_on)
    except ContentMissing:
        intact = False
    except StorageFull:
        raise
    except (LatheError, OSError) as error:
        log.warning("piece_not_brought", piece=one.storage_key, error=repr(error)[:200])
        return False
    if not intact:
        log.warning("piece_lost", piece=one.storage_key)
        with database.session_scope() as session:
            forget(session, one)
    return intact
