"""Checkpoints as a runner has them: tar files that its supervisor takes away and brings back."""

import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

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
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            with tarfile.open(self.given, "r:") as archive:
                # Plain files only, none outside the folder: PEP 706.
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, OSError) as error:
            self.events.log(f"The checkpoint of an earlier attempt cannot be read ({error}): training begins anew.")
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return folder

    def save(self, folder: Path) -> None:
        """Let this folder of plain files be the last one; it is moved away. A full disk loses it and nothing else."""
        name = f"{self.step}-{self._saved}.tar"
        partial = self.workdir / CHECKPOINT_FOLDER / f"{name}.partial"
        try:
            with tarfile.open(partial, "w:") as archive:
                for path in sorted(folder.iterdir()):
                    archive.add(path, path.name, recursive=False)
            partial.rename(partial.with_suffix(""))
        except OSError as error:
            partial.unlink(missing_ok=True)
            self.events.log(NOT_KEPT.format(error.strerror), "warning")
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._saved += 1
        self.events.checkpoint(self.step, name)
