"""Nothing is taken from a queue, and nothing collected, before storage is known to be that of the database."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.blobs.mark import REMEDY, UNMARKED, mismatch
from app.database import Database
from app.errors import LatheError
from app.storage import Storage

LOOK_AGAIN_SECONDS = 1.0
log = structlog.get_logger()


class StorageMark:
    """Whether storage is this database's, as often as it is asked; what keeps it from that is logged once."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage
        self._told: dict[str, str] = {}

    def is_ours(self) -> bool:
        """Whether it is. Where either does not answer, it is not known to be."""
        try:
            reason = mismatch(self._database, self._storage)
        except (SQLAlchemyError, LatheError) as error:
            self._tell("storage_mark_unread", cause=str(error.__cause__ or ""), error=str(error))
            return False
        if reason == UNMARKED:  # before the first API has started
            self._tell("storage_not_marked", reason=reason)
            return False
        if reason is not None:
            self._tell("storage_not_ours", reason=reason, remedy=REMEDY)
            return False
        self._told = {}
        return True

    def wait(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Until it is ours."""
        while not self.is_ours():
            sleep(LOOK_AGAIN_SECONDS)

    def _tell(self, what: str, cause: str = "", **words: str) -> None:
        """`cause` may hold times that differ each time: it makes no news."""
        if words != self._told:
            log.warning(what, cause=cause, **words)
        self._told = words
