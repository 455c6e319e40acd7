"""Checkpoints as a runner has them: tar files that its supervisor takes away and brings back.

Beside what a pass saved, each holds what was chosen up to it: the arguments that repeat every step of the recipe so
far. An attempt that goes on repeats them; else what it measures anew could lead to another model, and another training.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from app.recipes.base import PassConfig
from worker.runner.archives import Unreadable, pack_files, unpack_files
from worker.runner.contract import CHECKPOINT_FOLDER
from worker.runner.events import Events

CHOICES_FILE = "choices.json"
NOT_KEPT = "A checkpoint could not be written ({}): should the worker be lost, training goes on from an earlier one."


@dataclass
class StepCheckpoints:
    """Those of one step of a recipe. `given` is what an earlier attempt left, packed."""

    workdir: Path
    step: int
    given: Path | None
    scratch: Path
    events: Events
    choices: Sequence[Mapping[str, Any] | None] = ()
    """By step before this one, the arguments that repeat it; None where they are not known."""
    _own: Mapping[str, Any] | None = field(default=None, init=False)
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
            (folder / CHOICES_FILE).write_text(json.dumps([*self.choices, self._own]))
            pack_files(self.workdir / CHECKPOINT_FOLDER / name, {path.name: path for path in sorted(folder.iterdir())})
        except OSError as error:
            self.events.log(NOT_KEPT.format(error.strerror), "warning")
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._saved += 1
        self.events.checkpoint(self.step, name)

    def settle(self, arguments: Mapping[str, Any]) -> None:
        """See `Checkpoints`: it is written with the next that is saved."""
        self._own = arguments


def chosen_before(given: Path, recipe: Sequence[PassConfig], scratch: Path) -> dict[int, PassConfig]:
    """By step of the recipe, the pass with the arguments that repeat it, as the packed checkpoint `given` has them.

    What cannot be read, or is no recipe for that pass, is left out: the step is then carried out as it was asked for.
    """
    with TemporaryDirectory(dir=scratch) as folder:
        try:
            unpack_files(given, Path(folder) / "given")
            choices = json.loads((Path(folder) / "given" / CHOICES_FILE).read_text())
            found = list(zip(recipe, choices, strict=False))
        except (Unreadable, OSError, ValueError, TypeError):
            return {}
    settled: dict[int, PassConfig] = {}
    for number, (asked, arguments) in enumerate(found):
        try:
            if arguments is not None:
                settled[number] = type(asked).model_validate(arguments)
        except ValidationError:
            continue
    return settled
