"""The student: a user's model as a module, proven to compute what ONNX Runtime does, and fed as fast as it may be."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from app.recipes.training import TrainingOptions
from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.pass_contract import PassContext, TrainingData
from worker.engine.reasons import INSIDE_FUNCTION
from worker.engine.trainable.arrays import array_from, tensor_from
from worker.engine.trainable.batching import takes_larger_batches
from worker.engine.trainable.importing import import_model, plain_graph
from worker.engine.trainable.module import NORMALIZATION, TrainableGraph
from worker.engine.trainable.parity import check_parity
from worker.engine.trainable.parting import part
from worker.engine.trainable.weights import biases_and_norms
from worker.engine.training.batches import Finite, TooFewSamples, find_finite, smallest_step, training_count

FROZEN = "frozen by the recipe"
MOST_NAMED = 5


class NoTrainingData(UserFault):
    code, title = "data_required", "A pass that trains was given no training data"


class QuantizedModel(UserFault):
    code, title = "quantized_model", "A model in 8 bits cannot be trained"


class NothingToTrain(UserFault):
    code, title = "nothing_to_train", "No weight of the model may be trained"


@dataclass(frozen=True)
class Student:
    """`tensors` are those of the module that training moves; `frozen` says why others stay. `feeds` may be batched;
    `finite` says which samples of it may be fed.

    `file` is the model that was given, or where its exporter had merged tensors one with constants of their own for
    them; `origins` has the constant of the given model by the name of each. `biases` names biases and norms, which are
    no matrices whatever their shape.
    """

    file: ModelFile
    module: TrainableGraph
    feeds: Feeds
    finite: Finite
    tensors: dict[str, torch.Tensor]
    frozen: dict[str, str]
    notes: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    biases: frozenset[str] = frozenset()

    @property
    def samples(self) -> np.ndarray:
        """That may be fed, ascending indices."""
        return self.finite.samples

    def look(self, names: list[str] | None = None) -> dict[str, np.ndarray]:
        """Of two samples, or one call, the outputs or these values, as rows; what has no row a sample is left out."""
        call = next(self.feeds.calls(2, self.samples))
        fed = len(next(iter(call.feed.values()))) if call.feed else 0
        feed = {name: tensor_from(array) for name, array in call.feed.items()}
        with torch.no_grad():
            made = self.module.eval()(feed, names)
        return as_rows({name: array_from(value) for name, value in made.items()}, self.feeds, fed, len(call.samples))


def as_rows(made: Mapping[str, np.ndarray], feeds: Feeds, fed: int, samples: int) -> dict[str, np.ndarray]:
    """What a call made, a row a sample; `fed` samples went in, padding included."""
    if feeds.whole:
        return {name: array[None] for name, array in made.items()}
    return {name: array[:samples] for name, array in made.items() if array.ndim and len(array) == fed}


def training_data(context: PassContext) -> TrainingData:
    """What the job has to learn from: feeds, and labels as arrays by name.

    Raises:
        NoTrainingData: the job has none.

    """
    if context.training is None:
        raise NoTrainingData("The pass trains, and the job has no training data.", "Name a dataset as `data.training`.")
    return context.training


def feeds_for(model: ModelFile, data: TrainingData) -> Feeds:
    """The training data as another model takes it: its inputs are found by name among all arrays.

    Raises:
        DataMismatch: an input has no array that fits.

    """
    arrays = {**data.labels, **data.feeds.arrays}
    return match_arrays(inputs_of(model.structure()), arrays, data.feeds.source)


def prepare_student(
    model: ModelFile,
    data: TrainingData,
    options: TrainingOptions,
    context: PassContext,
    most: int | None = None,
) -> Student:
    """The model as a module on its device, proven against ONNX Runtime on the first samples; weights that the recipe
    freezes have no gradient, feeds are as large as the graph takes, and samples with NaN or infinity are left out: one
    would make the statistics and the loss of all that are fed with it no number. Where the first `most` of them will
    do, no others are looked for.

    Raises:
        QuantizedModel: it computes in 8 bits: gradients do not pass through rounding.
        NotTrainable: an operator has no form in torch, or gives another result there on the first samples.
        NothingToTrain: the recipe freezes every weight.
        DataMismatch: the data is not the model's.
        TooFewSamples: something of every sample is NaN or infinite.

    """
    if is_quantized(model.structure()):
        raise QuantizedModel(
            "The model computes in 8 bits: its weights are rounded, and rounding has no gradient.",
            "Put the passes that train before those that quantize.",
        )
    feeds = feeds_for(model, data)
    # Two batches of the file tell whether it takes larger ones.
    least = 2 * (feeds.fixed_batch or 1)
    finite = find_finite(feeds, options.batch_size, None if most is None else max(most, least))
    samples = finite.samples
    if not len(samples):
        where = ", ".join(sorted(finite.strange))
        raise TooFewSamples(
            f"Something of every sample of the training data is NaN or infinite, in {where}.",
            "Give training data without them.",
        )
    parted = part(model, set(options.freeze), Path(tempfile.mkdtemp(prefix="parted-", dir=context.scratch)))
    model = parted.model
    module = import_model(model)
    check_parity(model, module, next(feeds.calls(1, samples)).feed, context.scratch, context.threads)
    frozen = _frozen(model, module, options)
    for name in frozen:
        if name in module.held():
            module.held()[name].requires_grad_(False)
    tensors = {name: tensor for name, tensor in module.held().items() if name not in frozen}
    if not any(tensor.requires_grad for tensor in tensors.values()):
        raise NothingToTrain("Every weight of the model is frozen.", "Leave a weight out of `freeze`.")
    feeds, notes = _batched(module, feeds, samples)
    notes.extend(_left_out_in_words(finite, data.places))
    if parted.origins:
        merged = len(set(parted.origins.values()))
        notes.append(
            f"{merged} constants that are one number throughout stood for {merged + len(parted.origins)} tensors of "
            "different layers, as exporters merge what is equal: each is trained by itself."
        )
    notes.extend(_normalization(module, feeds, len(samples), options, frozen))
    if module.frozen_statistics:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in module.statistics}
    unknown = sorted(set(options.freeze) - module.held().keys())
    if unknown:
        notes.append(f"`freeze` names weights that the model does not train: {', '.join(unknown[:10])}.")
    module.to(_device(context))
    if context.device == "cuda" and module.device.type == "cpu":
        notes.append("Trained on the processor: torch finds no GPU here.")
    tensors = {name: module.held()[name] for name in tensors}
    biases = biases_and_norms(plain_graph(model).graph)
    return Student(model, module, feeds, finite, tensors, frozen, notes, parted.origins, biases)


def _device(context: PassContext) -> torch.device:
    return torch.device("cuda" if context.device == "cuda" and torch.cuda.is_available() else "cpu")


def _frozen(model: ModelFile, module: TrainableGraph, options: TrainingOptions) -> dict[str, str]:
    in_file = {name for name, _ in constants_of(model.structure().graph)}
    frozen = {name: INSIDE_FUNCTION for name in module.held() if name not in in_file}
    return frozen | {name: FROZEN for name in module.held() if name in options.freeze}


def _left_out_in_words(finite: Finite, places: np.ndarray | None) -> list[str]:
    """`places` as `TrainingData` has them."""
    if not finite.strange:
        return []
    arrays = []
    for name, found in finite.strange.items():
        more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
        first = found[:MOST_NAMED] if places is None else places[found[:MOST_NAMED]]
        arrays.append(f"{name} at {', '.join(map(str, first))}{more}")
    return [
        f"Left out of training and of judging: {finite.read - len(finite.samples):,} of {finite.read:,} samples, fed "
        f"NaN or infinity ({'; '.join(arrays)}, counted from 0{'' if places is None else ' in the whole dataset'})."
    ]


def _batched(module: TrainableGraph, feeds: Feeds, samples: np.ndarray) -> tuple[Feeds, list[str]]:
    """Feeds without the batch of the file, where two calls may be one; with one sample a call where they may not."""
    if feeds.whole:
        return feeds, ["The data holds whole calls: they are trained on one by one, gradients summed over a batch."]
    fixed = feeds.fixed_batch or 1
    if len(samples) < 2 * fixed:
        return feeds, []
    first, second = (feeds.call(samples[start : start + fixed]).feed for start in (0, fixed))
    tensors = [{name: tensor_from(array) for name, array in feed.items()} for feed in (first, second)]
    if takes_larger_batches(module, *tensors):
        return dataclasses.replace(feeds, fixed_batch=None), []
    note = f"The model mixes the samples of a call: it is trained on {fixed} at a time, gradients summed over a batch."
    return dataclasses.replace(feeds, fixed_batch=fixed), [note]


def _has_lonely_step(feeds: Feeds, count: int, options: TrainingOptions) -> bool:
    """Whether a step is fed one sample: it has no variance of its own. A batch of the file is filled up."""
    if feeds.fixed_batch is not None:
        return False
    return smallest_step(training_count(count, options.held_out), options.batch_size) == 1


def _normalization(
    module: TrainableGraph, feeds: Feeds, count: int, options: TrainingOptions, frozen: Mapping[str, str]
) -> list[str]:
    """Freeze the statistics of BatchNormalization where that is asked for, or where training could only spoil them."""
    if not any(step.operator.name == NORMALIZATION for step in module.steps):
        return []
    lonely = bool(feeds.whole) or feeds.fixed_batch == 1 or _has_lonely_step(feeds, count, options)
    kept = any(name in frozen for name in module.statistics)
    module.frozen_statistics = options.freeze_statistics or lonely or kept
    if not module.frozen_statistics:
        return []
    why = "as asked" if options.freeze_statistics else "a call holds one sample" if lonely else "some are frozen"
    return [f"BatchNormalization keeps its running statistics: {why}."]
