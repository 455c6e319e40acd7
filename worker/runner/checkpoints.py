"""Checkpoints as a runner has them: tar files that its supervisor takes away and brings back."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from worker.runner.archives import Unreadable, pack_files, unpack_files
from worker.runner.contract import CHECKPOINT_FOLDER
from worker.runner.events import Events

NOT_KEPT = "A checkpoint could not be written ({}): should the worker be lost, training goes on from an earlier one."


@dataclass
class StepCheckpoints:
    """Those of one step of a recipe. `given` is what an earlier attempt left, packed."""

    workdir: Path
    step: int
    given: Path | None
    scratch: Path
    events: Events
    _saved: int = field(default=0, init=False)

    def last(self) -> Path | None:
        """The folder that was saved last; None where there is none, or none that can be read."""
        if self.given is None:
            return None
        folder = self.scratch / "given-checkpoint"
        try:
            unpack_files(self.given, folder)
        except Unreadable as error:
            self.events.log(f"The checkpoint of an earlier attempt cannot be read ({error}): training begins anew.")
            return None
        return folder

    def save(self, folder: Path) -> None:
        """Let this folder of plain files be the last one; it is moved away. A full disk loses it and nothing else."""
        name = f"{self.step}-{self._saved}.tar"
        try:
            pack_files(self.workdir / CHECKPOINT_FOLDER / name, {path.name: path for path in sorted(folder.iterdir())})
        except OSError as error:
            self.events.log(NOT_KEPT.format(error.strerror), "warning")
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._saved += 1
        self.events.checkpoint(self.step, name)
