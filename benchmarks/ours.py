"""Lathe's passes as its runner runs them: with the defaults of the recipe, and nothing said of the model."""

import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.recipes.catalogue import CATALOGUE
from benchmarks.subjects import LABELS
from benchmarks.tasks import Task, arrays_in
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, TrainingData
from worker.passes.registry import load_pass

SEED = 0


def optimize(task: dict[str, Any], name: str) -> dict[str, Any]:
    """Run the pass `name`; its notes come back."""
    return follow(task, [{"pass": name}])


def follow(task: dict[str, Any], recipe: list[dict[str, Any]], others: dict[str, str] | None = None) -> dict[str, Any]:
    """Run one pass after the other; their notes come back. `others`: files of models that the recipe names, by id."""
    one = Task(**task)
    model = ModelFile(Path(one.model))
    contexts = _contexts(one, model, others or {})
    modified, notes = False, []
    started = time.perf_counter()
    for arguments in recipe:
        entry = CATALOGUE[arguments["pass"]]
        before = time.perf_counter()
        result = load_pass(arguments["pass"])(model, entry.config.model_validate(arguments), next(contexts))
        model, modified = result.model, modified or result.modified
        notes += [f"{arguments['pass']}: {time.perf_counter() - before:.1f} s"] if len(recipe) > 1 else []
        notes += result.notes
    seconds = time.perf_counter() - started
    for file in model.files():
        # External data is found by its name, the model by where it was asked for.
        target = Path(one.target)
        shutil.copyfile(file, target if file == model.path else target.with_name(file.name))
    return {"seconds": seconds, "modified": modified, "notes": notes}


def _contexts(task: Task, model: ModelFile, others: dict[str, str]) -> Iterator[PassContext]:
    """One for each pass, with a folder of its own."""
    inputs = inputs_of(model.structure())
    feeds = match_arrays(inputs, arrays_in(Path(task.calibration)), "the calibration data")
    training = None
    if task.training:
        arrays = arrays_in(Path(task.training))
        labels = {LABELS: arrays.pop(LABELS)}
        training = TrainingData(match_arrays(inputs, arrays, "the training data"), labels)
    for number in itertools.count():
        scratch = Path.cwd() / f"scratch-{number}"
        scratch.mkdir()
        yield PassContext(
            scratch,
            feeds,
            SEED,
            task.threads,
            target=replace(feeds, fixed_batch=task.batch) if task.batch > 1 else None,
            training=training,
            original=ModelFile(Path(task.original)) if task.original else None,
            others={name: ModelFile(Path(path)) for name, path in others.items()},
        )
