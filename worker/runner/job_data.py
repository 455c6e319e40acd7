"""The data of a job: which role feeds what, and in words what that is worth."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.recipes.catalogue import CATALOGUE
from app.recipes.request import LABEL_FREE, Metric, OptimizeRequest
from worker.engine.arrays import copy_samples, open_arrays, samples_not_finite
from worker.engine.evaluation.class_labels import check_labels, class_count
from worker.engine.evaluation.metrics import CLASSIFICATION
from worker.engine.evaluation.one_call import OutputFace
from worker.engine.feeds import DataMismatch, Feeds, match_arrays
from worker.engine.graph import TensorFace, inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import TrainingData
from worker.engine.processor import WITHOUT_VNNI, beyond_here, needs_reduced_range
from worker.engine.random_input import integer_bounds, is_batch, random_feeds, working_shapes
from worker.engine.repeated_samples import Samples, repeated
from worker.runner.contract import RunnerJob

RANDOM_CALLS = 8
# What so small a share of the samples does moves no share of all by more: not worth a copy of the others.
NEGLIGIBLE = 1e-3
RANDOM = (
    "No data was given: quality was measured on random input, which says whether the files agree on noise and nothing "
    "about data like yours. Give evaluation data."
)


@dataclass(frozen=True)
class JobData:
    """Feeds by use. `labels` are the arrays of the evaluation data that are no inputs."""

    calibration: Feeds
    evaluation: Feeds
    latency: Feeds
    batch: int
    labels: dict[str, np.ndarray]
    words: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    random_evaluation: bool = False
    random_calibration: bool = False
    held_out: bool = True
    """False where what passes read, or a search chose by, is what the file is judged by."""
    training: TrainingData | None = None
    """None where the job has none."""


def load_data(job: RunnerJob, request: OptimizeRequest, model: ModelFile, workdir: Path, scratch: Path) -> JobData:
    """The feeds of each use, calibration, evaluation and latency, labels `(N, ...)` by array, and warnings in words.

    Raises:
        UserFault: a dataset cannot be read, does not fit the model, or no input can be made up.

    """
    inputs = inputs_of(model.structure())
    check_shapes(job, request, inputs)
    arrays = open_roles(job, workdir, scratch)
    feeds = {role: match_arrays(inputs, found, source_of(job, role)) for role, found in arrays.items()}
    casts = dict.fromkeys(warning for found in feeds.values() for warning in found.warnings)
    warnings = [*casts, *not_finite_in_words(job, arrays)]
    batch, latency = timed_call(job, request, model, feeds, warnings)
    shapes = {name: array.shape[1:] for name, array in latency.arrays.items()}
    random_calibration = "calibration" not in feeds and "training" not in feeds
    calibration = feeds.get("calibration") or feeds.get("training")
    calibration = calibration or random_calls(model, shapes, RANDOM_CALLS, request.seed)
    judging = _judging(job, request, arrays, feeds, scratch)
    evaluation = calibration
    if judging.role is not None:
        evaluation = match_arrays(inputs, judging.arrays, source_of(job, judging.role))
    warnings.extend(judging.warnings)
    words = _words(job, request, feeds, {"calibration": calibration, "evaluation": evaluation}) | judging.words
    if "calibration" in feeds and "calibration" not in words:
        warnings.append(f"No pass of the recipe calibrates: {source_of(job, 'calibration')} was not used for that.")
    warnings.extend(_about_training(job, request))
    for role in ("calibration", "training"):
        if {role, "evaluation"} <= feeds.keys() and _same_file(job, role, "evaluation"):
            warnings.append(f"{role.capitalize()} and evaluation use the same dataset: nothing was held out.")
    return JobData(
        calibration=calibration,
        evaluation=evaluation,
        latency=latency,
        batch=batch,
        labels=without_inputs(judging.arrays, inputs) if judging.role == "evaluation" else {},
        words=words,
        warnings=warnings,
        random_evaluation=judging.role is None,
        random_calibration=random_calibration,
        held_out=judging.held_out,
        training=_training(arrays, feeds, inputs),
    )


def timed_call(
    job: RunnerJob, request: OptimizeRequest, model: ModelFile, feeds: dict[str, Feeds], warnings: list[str]
) -> tuple[int, Feeds]:
    """The batch and the call that latency is measured at: of the first samples, or made up where there are none."""
    warnings.extend(_of_another_processor(request.target.instruction_set))
    inputs, wanted = inputs_of(model.structure()), request.target.batch or 1
    given = next((feeds[role] for role in ("evaluation", "calibration", "training") if role in feeds), None)
    if given is None:
        shapes = working_shapes(model, inputs, request.target.shapes or {}, wanted, job.threads)
        return _first_axis(inputs, shapes), random_calls(model, shapes, 1, request.seed)
    batch = given.samples_per_call(wanted)
    if request.target.batch not in (None, batch):
        warnings.append(f"The model or its data fixes {batch} samples a call; latency was measured at that.")
    return batch, _first_call(given, batch, request.target.shapes or {})


def _of_another_processor(least: str | None) -> list[str]:
    """In words, that speed was measured on one that the target is not of: a list of no or one sentence."""
    if beyond_here(least):
        return [f"This worker's processor has no {least}: speed was measured, and kernels were chosen, without it."]
    if least in WITHOUT_VNNI and not needs_reduced_range():
        return [f"Speed was measured with VNNI. On processors that have no more than {least}, int8 gains less."]
    return []


def random_calls(model: ModelFile, shapes: dict[str, tuple[int, ...]], calls: int, seed: int) -> Feeds:
    """Input made up within the bounds that can be known."""
    inputs = inputs_of(model.structure())
    return random_feeds(inputs, integer_bounds(model.structure(), inputs), shapes, calls, seed)


def check_metric(metric: Metric, data: JobData, outputs: dict[str, OutputFace]) -> list[str]:
    """In words, label arrays that the job's metric does not use: a list of no or one sentence.

    Raises:
        MetricMismatch: the labels are of other classes than the output scores.

    """
    if metric.name in CLASSIFICATION:
        _check_labels(str(metric.labels), data, str(metric.output), outputs[str(metric.output)])
    # Outputs of numbers are measured against labels of their own name, whatever the metric is.
    unused = sorted(data.labels.keys() - {name for name, face in outputs.items() if face.dtype != "object"})
    if metric.name not in LABEL_FREE or not unused:
        return []
    return [
        f"Quality was not measured against the label arrays {', '.join(unused)}: the metric of this job is "
        f"{metric.name} of the output {metric.output}, which needs none. Set `metric` to use them."
    ]


def _check_labels(name: str, data: JobData, output: str, face: OutputFace) -> None:
    """Before anything is optimized for a metric that cannot be measured. Raises MetricMismatch."""
    labels = data.labels[name]
    batched = not data.evaluation.whole and face.shape[:1] == [data.batch]
    rows = face.shape[1:] if batched else face.shape
    check_labels(name, labels, output, class_count([len(labels), *rows], labels.shape, face.dtype))


def open_roles(job: RunnerJob, workdir: Path, scratch: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by role; a file that serves two roles is opened once."""
    opened: dict[str, dict[str, np.ndarray]] = {}
    for file in job.datasets.values():
        if file.path not in opened:
            folder = scratch / f"dataset-{len(opened)}"
            opened[file.path] = open_arrays(workdir / file.path, file.media_type, folder)
    return {role: opened[file.path] for role, file in job.datasets.items()}


def _words(job: RunnerJob, request: OptimizeRequest, feeds: dict[str, Feeds], used: dict[str, Feeds]) -> dict[str, str]:
    """By role, what was given, or made up where nothing was; calibration data where a pass calibrates or it judges."""
    words = {role: f"{source_of(job, role)}: {found.sample_count} samples" for role, found in feeds.items()}
    if not feeds.keys() & {"calibration", "training"}:
        made_up = [role for role in used if role not in feeds]
        words |= {role: f"random input: {used[role].sample_count} calls" for role in made_up}
    if not _calibrates(request) and "evaluation" in words:
        words.pop("calibration", None)
    return words


def not_finite_in_words(job: RunnerJob, arrays: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """In words, the arrays in which something is no number; a file that serves two roles is read once."""
    files = {job.datasets[role].path: (source_of(job, role), found) for role, found in arrays.items()}
    return [
        f"Array {name!r} of {source} is NaN or infinite in {count:,} of {len(array):,} samples."
        for source, found in files.values()
        for name, array in found.items()
        if (count := samples_not_finite(array))
    ]


def without_inputs(arrays: dict[str, np.ndarray], inputs: list[TensorFace]) -> dict[str, np.ndarray]:
    fed = {face.name for face in inputs}
    return {name: array for name, array in arrays.items() if name not in fed}


def _calibrates(request: OptimizeRequest) -> bool:
    return any(CATALOGUE[config.pass_].reads_calibration for config in request.passes)


@dataclass(frozen=True)
class _Judging:
    """What quality is measured on: the arrays of a role, None where no data was given, without samples that passes read
    of other roles, unless those are negligibly few; and what is told of it.
    """

    role: str | None
    arrays: dict[str, np.ndarray]
    held_out: bool
    warnings: list[str]
    words: dict[str, str] = field(default_factory=dict)


def _judging(
    job: RunnerJob,
    request: OptimizeRequest,
    arrays: dict[str, dict[str, np.ndarray]],
    feeds: dict[str, Feeds],
    scratch: Path,
) -> _Judging:
    """Samples are the same by content: the same bytes uploaded twice, and the same sample in two datasets."""
    role = next((one for one in ("evaluation", "calibration", "training") if one in feeds), None)
    if role is None:
        return _Judging(None, {}, not (_calibrates(request) or request.learns), [RANDOM])
    warnings = []
    if role != "evaluation":
        warnings.append(
            f"No evaluation data was given: fidelity was measured on the {role} data, which the optimization has seen. "
            "Give samples of their own as evaluation data."
        )
    read = [one for one in _roles_read(request, feeds) if one in feeds]
    if not read or any(_same_file(job, role, one) for one in read):
        return _Judging(role, arrays[role], not read, warnings)
    parts = {one: Samples(feeds[one], np.arange(feeds[one].sample_count)) for one in (role, *read)}
    again = repeated(parts, {role: read})[role]
    source, count, left_out = source_of(job, role), len(again), int(again.sum())
    if not left_out:
        return _Judging(role, arrays[role], True, warnings)
    if left_out == count:
        warnings.append(f"Passes of the recipe read all {count:,} samples of {source} as well: nothing was held out.")
        return _Judging(role, arrays[role], False, warnings)
    if left_out <= NEGLIGIBLE * count:
        warnings.append(
            f"Passes of the recipe read {left_out:,} of {count:,} samples of {source} as well: too few to matter, so "
            "they are measured on all the same."
        )
        return _Judging(role, arrays[role], True, warnings)
    warnings.append(
        f"Left out of {count:,} samples of {source}, as passes of the recipe read the same ones: {left_out:,}."
    )
    kept = copy_samples(arrays[role], np.flatnonzero(~again), scratch / "held-out")
    return _Judging(role, kept, True, warnings, {role: f"{source}: {count - left_out} of {count} samples"})


def _roles_read(request: OptimizeRequest, feeds: dict[str, Feeds]) -> set[str]:
    """Roles that passes read samples of; without calibration data those that are trained on calibrate."""
    found = {"calibration" if "calibration" in feeds else "training"} if _calibrates(request) else set()
    return found | ({"training"} if request.learns else set())


def _training(
    arrays: dict[str, dict[str, np.ndarray]], feeds: dict[str, Feeds], inputs: list[TensorFace]
) -> TrainingData | None:
    if "training" not in feeds:
        return None
    return TrainingData(feeds["training"], without_inputs(arrays["training"], inputs))


def _about_training(job: RunnerJob, request: OptimizeRequest) -> list[str]:
    """In words, training data that nothing learns from: a list of no or one sentence."""
    if request.learns or "training" not in job.datasets:
        return []
    return [f"No pass of the recipe trains: nothing learned from {source_of(job, 'training')}."]


def source_of(job: RunnerJob, role: str) -> str:
    return f"dataset {job.datasets[role].name!r}"


def _same_file(job: RunnerJob, first: str, second: str) -> bool:
    return job.datasets[first].sha256 == job.datasets[second].sha256


def check_shapes(job: RunnerJob, request: OptimizeRequest, inputs: list[TensorFace]) -> None:
    """Raises DataMismatch: `target.shapes` names what is no input, or an input that does not fit into memory."""
    shapes = request.target.shapes or {}
    unknown = sorted(set(shapes) - {face.name for face in inputs})
    if unknown:
        raise DataMismatch(
            f"`target.shapes` names {', '.join(unknown)}, which are no inputs of the model.",
            f"Its inputs are {', '.join(face.name for face in inputs)}.",
        )
    for name, shape in shapes.items():
        # A value takes a byte at least; what takes more is found where it is made.
        if (values := math.prod(shape)) > job.memory_bytes:
            raise DataMismatch(
                f"`target.shapes.{name}` is {shape}: {values:,} values, and the job has {job.memory_bytes:,} bytes.",
                "Give a smaller shape.",
            )


def _first_call(given: Feeds, batch: int, shapes: dict[str, list[int]]) -> Feeds:
    """The first `batch` samples as one call, repeated where there are fewer; `shapes` bends them."""
    feed = given.call(np.resize(np.arange(given.sample_count), batch)).feed
    return Feeds(
        arrays={name: _bent(array, shapes.get(name))[None] for name, array in feed.items()},
        dtypes=given.dtypes,
        whole=frozenset(feed),
        sample_count=1,
    )


def _first_axis(inputs: list[TensorFace], shapes: dict[str, tuple[int, ...]]) -> int:
    """Samples of a call made up: what most inputs have as their first axis. Left out are those without elements, and
    those whose first axis has a name that counts something else, as the nodes of a graph.
    """
    firsts = [shapes[face.name][0] for face in inputs if shapes[face.name] and _may_count_samples(face, inputs)]
    sizes = [size for size in firsts if size]
    return max(set(sizes), key=sizes.count) if sizes else 1


def _may_count_samples(face: TensorFace, inputs: list[TensorFace]) -> bool:
    first = face.shape[0] if face.shape else None
    return not isinstance(first, str) or is_batch(first, inputs)


def _bent(array: np.ndarray, shape: list[int] | None) -> np.ndarray:
    """Real values in another shape, repeated as needed: indices stay within their tables."""
    return array if shape is None else np.resize(array, shape)
