"""A worker that dies while it trains, and what it leaves to go on from."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engine.pass_contract import Checkpoints


class Killed(Exception):
    """The worker is gone."""


@dataclass
class Kept(Checkpoints):
    """Holds the last checkpoint, and what was `chosen` up to it; the process ends once `after` of them were saved."""

    folder: Path
    after: int = 1_000
    saved: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)
    """The arguments, without the name of the pass, that another attempt is given."""

    def last(self) -> Path | None:
        return self.folder if self.folder.exists() else None

    def save(self, folder: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.move(folder, self.folder)
        self.saved += 1
        if self.saved == self.after:
            raise Killed

    def settle(self, arguments: Mapping[str, Any]) -> None:
        self.chosen = {name: value for name, value in arguments.items() if name != "pass"}
