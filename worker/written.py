"""How much a runner writes in all. The kernel bounds each of its files, and neither their number nor their sum; so the
supervisor looks at its folder every few seconds, and ends a runner that has left too much there.

Bytes that no name leads to any more, of a file that was removed and is still open, are not seen: a process can keep its
open files from being listed, and map them without. Only a disk of its own holds who does so.
"""

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.failures import JobFailed, too_much_written
from worker.work_folders import entered

LOOK_SECONDS = 5.0
# Of files and folders, beyond what was brought; and of folders in one another. An archive may have 10,000 members, and
# jobs some of them: a look at so many takes some tens of milliseconds.
MOST_FILES = 100_000
MOST_LEVELS = 50


class TooMuch(Exception):
    """More than may lie there; how much more, nobody counted."""


@dataclass
class Extent:
    """What lies in a folder: bytes as the disk has them, and files and folders."""

    size_bytes: int = 0
    files: int = 0

    def add(self, folder: int, most: "Extent | None" = None, level: int = 0) -> None:
        """All below the folder of that descriptor. Raises TooMuch as soon as there is more than `most`, and OSError."""
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                self.files += 1
                # A file of several names has its bytes once.
                self.size_bytes += status.st_blocks * 512 // max(1, status.st_nlink)
                if most and (self.size_bytes > most.size_bytes or self.files > most.files or level > MOST_LEVELS):
                    raise TooMuch
                if stat.S_ISDIR(status.st_mode):
                    self._add_below(entry.name, folder, most, level)

    def _add_below(self, name: str, folder: int, most: "Extent | None", level: int) -> None:
        try:
            below = entered(name, folder)
        except OSError:
            return  # gone meanwhile: one that cannot be entered keeps nobody from what lies beside it
        try:
            self.add(below, most, level + 1)
        finally:
            os.close(below)


class Written:
    """What one runner may write in its folder and around it, beyond what lies there when this is made."""

    def __init__(self, home: Path, most_bytes: int) -> None:
        self._home, self._most_bytes = home, most_bytes
        brought = self._extent()
        self._most = Extent(brought.size_bytes + most_bytes, brought.files + MOST_FILES)
        self._looked = time.monotonic()

    def look(self) -> None:
        """At most every few seconds. Raises JobFailed where there is too much."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        try:
            with suppress(OSError):  # what this process lacks for a look, it may have for the next
                self._extent(self._most)
        except TooMuch as found:
            fault = too_much_written(self._most_bytes, MOST_FILES, MOST_LEVELS)
            raise JobFailed(fault, retryable=False) from found
        self._looked = time.monotonic()

    def _extent(self, most: Extent | None = None) -> Extent:
        extent, folder = Extent(), entered(self._home)
        try:
            extent.add(folder, most)
        finally:
            os.close(folder)
        return extent
