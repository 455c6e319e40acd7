"""A worker that dies while it trains, and what it leaves to go on from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from worker.engine.pass_contract import Checkpoints


class Killed(Exception):
    """The worker is gone."""


@dataclass
class Kept(Checkpoints):
    """Holds the last checkpoint; the process ends once `after` of them were saved."""

    folder: Path
    after: int = 1_000
    saved: int = 0

    def last(self) -> Path | None:
        return self.folder if self.folder.exists() else None

    def save(self, folder: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.move(folder, self.folder)
        self.saved += 1
        if self.saved == self.after:
            raise Killed
