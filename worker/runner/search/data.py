"""The data of a search: disjoint samples to calibrate, to train, to choose by and to accept by."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.recipes.request import OptimizeRequest
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import TrainingData
from worker.runner.contract import RunnerJob
from worker.runner.job_data import (
    RANDOM,
    RANDOM_CALLS,
    JobData,
    check_shapes,
    not_finite_in_words,
    open_roles,
    random_calls,
    source_of,
    timed_call,
    without_inputs,
)
from worker.runner.search.splits import Given, split_roles

# Made up for choosing, enough to tell files apart that agree from files that do not; and for accepting, as many as the
# usual confidence needs to accept any by a metric that counts no samples (`acceptance.least_samples`).
CHOOSING_CALLS, ACCEPTING_CALLS = 32, 64


@dataclass(frozen=True)
class SearchData:
    """`accepting.evaluation` is seen by nothing but the last judgement; `selecting` has samples to choose by there."""

    accepting: JobData
    selecting: JobData


def load_search_data(
    job: RunnerJob, request: OptimizeRequest, model: ModelFile, workdir: Path, scratch: Path
) -> SearchData:
    """
    Raises:
        UserFault: a dataset cannot be read, does not fit the model, or no input can be made up.

    """
    inputs = inputs_of(model.structure())
    check_shapes(job, request, inputs)
    arrays = open_roles(job, workdir, scratch)
    names = {role: source_of(job, role) for role in arrays}
    given = {
        role: Given(found, match_arrays(inputs, found, names[role]), job.datasets[role].sha256, names[role])
        for role, found in arrays.items()
    }
    split = split_roles(given, scratch / "split", request.seed, trains=request.learns)
    feeds = {role: match_arrays(inputs, found, split.sources[role]) for role, found in split.arrays.items()}
    casts = dict.fromkeys(warning for found in feeds.values() for warning in found.warnings)
    warnings = [*casts, *not_finite_in_words(job, arrays), *split.warnings, *_unused(names, split.sources)]
    batch, latency = timed_call(job, request, model, feeds, warnings)
    words = split.words
    if not given:
        feeds, words = _made_up(model, latency, request.seed)
        warnings.append(RANDOM)
    labels = {role: without_inputs(found, inputs) for role, found in split.arrays.items()}
    accepting = JobData(
        calibration=feeds["calibration"],
        evaluation=feeds["evaluation"],
        latency=latency,
        batch=batch,
        labels=labels.get("evaluation", {}),
        words=words,
        warnings=warnings,
        random_evaluation=not given,
        random_calibration=not given,
        held_out="evaluation" not in split.shared,
        training=_training(feeds, labels, split.places),
    )
    return SearchData(accepting, replace(accepting, evaluation=feeds["selection"], labels=labels.get("selection", {})))


def _made_up(model: ModelFile, latency: Feeds, seed: int) -> tuple[dict[str, Feeds], dict[str, str]]:
    shapes = {name: array.shape[1:] for name, array in latency.arrays.items()}
    calls = {"calibration": RANDOM_CALLS, "selection": CHOOSING_CALLS, "evaluation": ACCEPTING_CALLS}
    feeds = {
        role: random_calls(model, shapes, count, seed + number) for number, (role, count) in enumerate(calls.items(), 1)
    }
    return feeds, {role: f"random input: {found.sample_count} calls" for role, found in feeds.items()}


def _unused(names: dict[str, str], sources: dict[str, str]) -> list[str]:
    """In words, training data that serve nothing where no candidate is trained: a list of no or one sentence."""
    name = names.get("training")
    if name is None or name in sources.values():
        return []
    return [f"No candidate is trained: nothing was made of {name}."]


def _training(
    feeds: dict[str, Feeds], labels: dict[str, dict[str, np.ndarray]], places: dict[str, np.ndarray]
) -> TrainingData | None:
    if "training" not in feeds:
        return None
    return TrainingData(feeds["training"], labels["training"], places.get("training"))
