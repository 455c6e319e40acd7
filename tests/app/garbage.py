"""Collecting at once what nothing refers to."""

from app.blobs.collection import GarbageCollector
from app.database import Database
from app.storage import Storage


def collect_garbage(database: Database, storage: Storage, grace_seconds: float) -> int:
    """As one round of a collector that begins here: with a grace it removes no file. How many were removed."""
    return GarbageCollector(database, storage, grace_seconds).collect()
