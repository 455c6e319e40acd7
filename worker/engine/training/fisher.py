"""What a model's answers feel of each of its weights: the gradients that Fisher information is made of.

g * w, with g the gradient of -log p(y) for an answer y that is drawn from what the model itself says of the sample:
summed over all weights of a unit and squared, its mean over samples is what the loss is expected to gain, to first
order, where the unit is taken out (P. Molchanov et al., Importance Estimation for Neural Network Pruning,
https://arxiv.org/abs/1906.10771). Drawn answers take no labels, and unlike the data's own they make it the Fisher
information (F. Kunstner et al., Limitations of the Empirical Fisher Approximation, https://arxiv.org/abs/1905.12558).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from app.recipes.training import TrainingOptions
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, TrainingData
from worker.engine.trainable.arrays import tensor_from
from worker.engine.trainable.importing import plain_graph
from worker.engine.training.losses import log_probabilities
from worker.engine.training.randomness import generator, repeatable
from worker.engine.training.readings import Reading, find_readings
from worker.engine.training.student import Student, prepare_student

# The first number of the key of what is drawn here; `randomness` has the others.
ANSWER = 3


class NothingToFeel(UserFault):
    code, title = "no_gradients", "No output of the model has gradients"


@dataclass(frozen=True)
class Felt:
    """Of every weight g * w by the name of its constant, in its shape, float32, one sample at a time; and in words what
    was left out.
    """

    products: Iterator[dict[str, np.ndarray]]
    notes: list[str]


def gradient_products(model: ModelFile, context: PassContext, samples: int) -> Felt:
    """Of the first `samples` of the calibration data that are finite; what lies behind these is not read. Of numbers,
    answers are normal around the output, as wide as it is large.

    Raises:
        NotTrainable: an operator has no form in torch.
        QuantizedModel: it computes in 8 bits.
        TooFewSamples: no sample is finite.
        NothingToFeel: no output holds floats, a row a sample.

    """
    options = TrainingOptions()
    with repeatable(context.threads):
        student = prepare_student(model, TrainingData(context.feeds), options, context, samples)
        outputs = student.look()
    readings = find_readings(plain_graph(model), outputs, {}, options, bool(student.feeds.whole))
    if not readings:
        raise NothingToFeel(
            "Fisher information is taken of outputs that hold floats, a row for each sample; the model's outputs "
            f"are {', '.join(value.name for value in model.structure().graph.output)}, and none does.",
            "Choose another `importance`, or give a model that returns scores in place of class numbers.",
        )
    wide = {name: float(np.sqrt(np.mean(np.square(rows, dtype=np.float64)))) or 1.0 for name, rows in outputs.items()}
    return Felt(_products(student, readings, wide, context, samples), _left_out_in_words(student))


def _products(
    student: Student, readings: Mapping[str, Reading], wide: Mapping[str, float], context: PassContext, samples: int
) -> Iterator[dict[str, np.ndarray]]:
    weights = {name: tensor for name, tensor in student.tensors.items() if tensor.requires_grad}
    names = list(dict.fromkeys(reading.value for reading in readings.values()))
    with repeatable(context.threads):
        student.module.eval()
        for number, call in enumerate(student.feeds.calls(1, student.samples[:samples])):
            feed = {name: tensor_from(array).to(student.module.device) for name, array in call.feed.items()}
            made = student.module(feed, names)
            drawn = generator(context.seed, ANSWER, number)
            loss = _surprise(made, readings, wide, bool(student.feeds.whole), drawn)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            found: dict[str, np.ndarray] = {}
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                felt = np.zeros(tuple(weight.shape), np.float32) if gradient is None else _array(gradient * weight)
                # What the student has parted is one constant of the model.
                origin = student.origins.get(name, name)
                found[origin] = found[origin] + felt if origin in found else felt
            yield found


def _left_out_in_words(student: Student) -> list[str]:
    finite = student.finite
    if not finite.strange:
        return []
    return [
        f"Left out of `fisher`: {finite.read - len(finite.samples):,} of the first {finite.read:,} samples of the "
        f"calibration data, fed NaN or infinity in {', '.join(finite.strange)}."
    ]


def _surprise(
    made: Mapping[str, torch.Tensor],
    readings: Mapping[str, Reading],
    wide: Mapping[str, float],
    whole: bool,
    drawn: np.random.Generator,
) -> torch.Tensor:
    """-log p(y) of answers y drawn from p, over all outputs of one call."""
    total = torch.zeros((), device=next(iter(made.values())).device)
    for name, reading in readings.items():
        found = made[reading.value]
        # An axis of rows counts from the axis of samples, which a whole call has not.
        axis = None if reading.axis is None else reading.axis - whole
        if axis is None:
            noise = torch.from_numpy(drawn.standard_normal(tuple(found.shape)).astype(np.float32)).to(found.device)
            total = total + (found * noise).sum() / wide[name]
            continue
        logs = (log_probabilities(found) if reading.probabilities else found).log_softmax(axis)
        # The largest of scores with Gumbel noise is a draw from their softmax.
        noise = torch.from_numpy(drawn.gumbel(size=tuple(found.shape)).astype(np.float32)).to(found.device)
        answer = (logs.detach() + noise).argmax(axis, keepdim=True)
        total = total - logs.gather(axis, answer).sum()
    return total


def _array(tensor: torch.Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
