"""Lathe's passes as its runner runs them: with the defaults of the recipe, and nothing said of the model."""

import shutil
import time
from pathlib import Path
from typing import Any

from app.recipes.catalogue import CATALOGUE
from benchmarks.tasks import Task, arrays_in
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.passes.registry import load_pass

SEED = 0


def optimize(task: dict[str, Any], name: str) -> dict[str, Any]:
    """Run the pass `name`; its notes come back."""
    one = Task(**task)
    apply = load_pass(name)
    model = ModelFile(Path(one.model))
    config = CATALOGUE[name].config.model_validate({"pass": name})
    feeds = match_arrays(inputs_of(model.structure()), arrays_in(Path(one.calibration)), "the calibration data")
    scratch = Path.cwd() / "scratch"
    scratch.mkdir()
    started = time.perf_counter()
    result = apply(model, config, PassContext(scratch, feeds, SEED, one.threads))
    seconds = time.perf_counter() - started
    for file in result.model.files():
        # External data is found by its name, the model by where it was asked for.
        target = Path(one.target)
        shutil.copyfile(file, target if file == result.model.path else target.with_name(file.name))
    return {"seconds": seconds, "modified": result.modified, "notes": result.notes}
