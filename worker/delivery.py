"""The end of an attempt that succeeded: its outputs into storage, then every row of the job in one transaction.

Storage takes as long as it likes, or does not answer. A worker that is told to stop does not wait for that: it hands
its job back, and what was stored until then, or is stored yet, is a file that no row knows. The collector removes it.
"""

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.blobs.collection import discard
from app.blobs.tables import storage_key
from app.errors import LatheError, OurFault
from app.jobs import lease
from app.jobs.checkpoints import checkpoints_of
from app.jobs.lease import Progress
from app.jobs.states import JobKind
from app.storage import Storage
from worker.carrying import CLOSING_SECONDS
from worker.failures import JobFailed, ResultNotStored, is_shortage, ours
from worker.held import Held, LeaseLost
from worker.publishing import RunnerBroken, StoredOutput, find_copies, publish, store_outputs, without_bytes
from worker.runner.contract import RunnerResult
from worker.stop import Stop, Stopping
from worker.threads import awaited

PUBLISHING = {"type": "phase", "phase": "publishing"}


@dataclass(frozen=True)
class Delivery:
    """Of one attempt; `lost` is set where its lease is."""

    held: Held
    storage: Storage
    lost: threading.Event
    stopping: Stop

    def deliver(self, result: RunnerResult, folder: Path, runner_seconds: float) -> None:
        """End the job with what its runner made. Raises JobFailed, ResultNotStored, LeaseLost, Stopping."""
        claim = self.held.claim
        if claim.kind is JobKind.OPTIMIZE:
            phase = Progress(phase="publishing")
            if not self.held.write(lambda session: lease.record(session, claim, phase, [PUBLISHING]) is not None):
                raise LeaseLost
        stored, lost = awaited(lambda: self._store(result, folder), f"store-{claim.job_id}", self._check_going_on)
        if self.lost.is_set():
            raise LeaseLost
        garbage: list[str] = []

        def publish_all(session: Session) -> bool:
            checkpoints = [one.key for one in checkpoints_of(session, claim.job_id)]
            duplicates = publish(session, claim, result, stored, runner_seconds, lost)
            garbage[:] = checkpoints + [storage_key(claim.workspace_id, blob_id) for blob_id in duplicates or ()]
            return duplicates is not None

        if not self.held.write(publish_all):
            # Ours may be the commit whose answer was lost: the files stay, and the collector knows if a row has them.
            raise LeaseLost
        # The job is over, and a second copy or a checkpoint that stays is nothing to it: the collector finds it.
        with suppress(Stopping):
            awaited(lambda: self._discard(garbage), f"discard-{claim.job_id}", self._check_time)

    def _check_going_on(self) -> None:
        if self.lost.is_set():
            raise LeaseLost
        self._check_time()

    def _check_time(self) -> None:
        """A worker that is stopped takes in what is on its way, for so long."""
        self.stopping.ensure_time(CLOSING_SECONDS)

    def _store(self, result: RunnerResult, folder: Path) -> tuple[list[StoredOutput], set[UUID]]:
        """The outputs, stored, and the blobs in whose place they come. Raises JobFailed, ResultNotStored."""
        try:
            stored = store_outputs(self.storage, self.held.claim, result, folder)
            return stored, self._lost_copies(stored)
        except (RunnerBroken, FileNotFoundError) as broken:
            raise JobFailed(ours(OurFault.RUNNER_CRASHED, f"The runner broke: {broken}."), retryable=True) from broken
        except (LatheError, OSError) as error:
            if is_shortage(error):
                raise ResultNotStored from error
            raise

    def _lost_copies(self, stored: list[StoredOutput]) -> set[UUID]:
        """Blobs that should hold the bytes of an output, and do not."""
        copies: dict[UUID, int] = {}

        def find(session: Session) -> bool:
            copies.update(find_copies(session, self.held.claim, stored))
            return True

        self.held.write(find)
        return without_bytes(self.storage, self.held.claim, copies)

    def _discard(self, keys: Iterable[str]) -> None:
        for key in keys:
            discard(self.storage, key)
