"""How stored bytes come to the folder of a runner: believed only with the hash they had; and how much of its disk may
be filled with what can be made anew.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from app.storage import Storage


def fetch_verified(storage: Storage, key: str, path: Path, sha256: bytes, going_on: Callable[[], None]) -> bool:
    """Copy what lies in storage under `key` into the file `path`. Whether it has that hash.

    Raises ContentMissing, StorageFull, Unavailable, OSError, and whatever `going_on` does, asked between chunks.
    """
    storage.fetch(key, path, going_on)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest() == sha256


def spare_bytes(folder: Path) -> int:
    """Half of what is free on the disk of `folder`: so much may be filled with what can be made anew.

    The rest is the runner's, which unpacks what it is brought, and makes files of its own.
    """
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize // 2
