"""Convolutions that BatchNormalization was folded into, trained with one again.

Exporters fold it, so that an uploaded file has none left, and a network without it learns slower and ends lower
(benchmarks/RESULTS.md has by how much). Behind a convolution it is put back as the identity: the statistics are those
of what the convolution makes of training data, scale and shift undo them. Training moves them apart; in the end scale
and statistics go into the weight and the bias (B. Jacob et al., https://arxiv.org/abs/1712.05877, section 3.2), and the
user's graph keeps the nodes that it had.

How large a filter is no longer matters to what is computed, but the larger it is, the less of it a step turns (T. van
Laarhoven, https://arxiv.org/abs/1706.05350, section 2), and folding leaves filters of any size. They are brought to the
size in which they are drawn before training, for which learning rates are chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch

from worker.engine.graph import qualified
from worker.engine.int8.ends import last_of
from worker.engine.pass_contract import PassContext
from worker.engine.trainable.importing import plain_graph
from worker.engine.trainable.module import NORMALIZATION, Step, TrainableGraph
from worker.engine.trainable.operators import TABLE
from worker.engine.training.batches import Batches, smallest_step
from worker.engine.training.lesson import Lesson
from worker.engine.training.trainer import Tensors

EPSILON, MOMENTUM = 1e-5, 0.9
OPSET = 15
# Of fewer samples a call the statistics are noise (Y. Wu & K. He, Group Normalization,
# https://arxiv.org/abs/1803.08494, figure 1: below 16 the error rises), and of fewer places as well.
LEAST_BATCH, LEAST_PLACES = 16, 4
# Whose statistics training begins with, spread over all: data may be sorted.
SAMPLES = 256
OTHERS = frozenset(
    {
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "com.microsoft.SkipLayerNormalization",
        "com.microsoft.SkipSimplifiedLayerNormalization",
        # What exporters of old write them as.
        "Sqrt",
    }
)


@dataclass(frozen=True)
class Place:
    """A convolution, and the names of what its result is and of the tensors around it."""

    value: str
    weight: str
    bias: str

    @property
    def raw(self) -> str:
        return f"{self.value}, not normalized"

    def tensors(self) -> tuple[str, str, str, str]:
        """Names of scale, shift, mean and variance."""
        scale, shift, mean, variance = (f"{part} of {self.value}" for part in ("scale", "shift", "mean", "variance"))
        return scale, shift, mean, variance


@dataclass(frozen=True)
class Restored:
    """The lesson with normalization at these places."""

    lesson: Lesson
    places: Sequence[Place] = ()

    @property
    def weights(self) -> list[str]:
        return [place.weight for place in self.places]

    def in_words(self) -> list[str]:
        """Of weights that are kept."""
        if not self.places:
            return []
        count = len(self.places)
        return [f"Trained with BatchNormalization behind {count} of the convolutions, folded into them in the end."]

    def folded(self, state: Tensors) -> Tensors:
        """What was trained as the file has it: w k and shift - mean k, with k = scale / sqrt(variance + epsilon)."""
        left = dict(state)
        for place in self.places:
            scale, shift, mean, variance = (left.pop(name) for name in place.tensors())
            factor = scale / torch.sqrt(variance + EPSILON)
            weight = left[place.weight]
            left[place.weight] = weight * _by_filter(factor, weight)
            left[place.bias] = shift - mean * factor
        return left


def restore_normalization(lesson: Lesson, context: PassContext) -> Restored:
    """Put it into the lesson's module. None where something is learned that is no class: numbers would be taught with
    the noise of batches, to networks that may never have known any. Rows that may be scores pass for scores.

    Raises:
        BudgetExhausted: time is over meanwhile.

    """
    student, module = lesson.student, lesson.student.module
    if not lesson.options.restore_normalization or not _suits(lesson):
        return Restored(lesson)
    graph = plain_graph(student.file).graph
    trained = {name for name, tensor in student.tensors.items() if tensor.requires_grad}
    possible = [one for one in _places(graph) if {one.weight, one.bias} <= trained]
    moments = _moments(module, _nameable(possible, graph), lesson.batches, context)
    found = [place for place, (mean, variance) in moments.items() if _normalize(module, place, mean, variance)]
    gone, new = {place.bias for place in found}, [name for place in found for name in place.tensors()]
    tensors = {name: tensor for name, tensor in student.tensors.items() if name not in gone}
    tensors |= {name: module.held()[name] for name in new}
    return Restored(replace(lesson, student=replace(student, tensors=tensors)), found)


def _suits(lesson: Lesson) -> bool:
    objective, batches, module = lesson.objective, lesson.batches, lesson.student.module
    classes = [one.target.axis is not None for one in objective.hard]
    classes += [one.reading.axis is not None for one in objective.soft]
    if not classes or not all(classes) or batches.feeds.whole:
        return False
    if module.frozen_statistics or lesson.options.freeze_statistics:
        return False
    step = smallest_step(len(batches.samples), batches.size)
    return min(step, batches.feeds.fixed_batch or step) >= LEAST_BATCH


def _places(graph: ir.Graph) -> list[Place]:
    if any(qualified(node) in OTHERS for node in graph):
        return []
    last = last_of(graph)
    found = []
    for node in graph:
        if qualified(node) == "Conv" and node not in last and _stands_free(node):
            weight, bias = ("" if value is None else value.name or "" for value in node.inputs[1:3])
            found.append(Place(node.outputs[0].name or "", weight, bias))
    return found


def _stands_free(node: ir.Node) -> bool:
    """Whether a bias and filters are its own, and what reads the result is no normalization."""
    own = len(node.inputs) == 3 and all(value is not None and len(value.uses()) == 1 for value in node.inputs[1:])
    readers = [use.node for use in node.outputs[0].uses()]
    return own and not node.outputs[0].is_graph_output() and all(qualified(one) != NORMALIZATION for one in readers)


def _nameable(places: list[Place], graph: ir.Graph) -> list[Place]:
    """Those whose names for what is new nothing else bears, in the file or here."""
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {value.name for node in graph for value in node.outputs}
    found = []
    for place in places:
        names = {place.raw, *place.tensors()}
        if taken.isdisjoint(names):
            taken |= names
            found.append(place)
    return found


def _normalize(module: TrainableGraph, place: Place, mean: torch.Tensor, variance: torch.Tensor) -> bool:
    """Put normalization there that undoes this mean and variance of each channel. False, and nothing done, where it
    would be no number: numbers near the ends of float32 go beyond them.
    """
    weight, bias = (module.held()[name].detach() for name in (place.weight, place.bias))
    factor = _to_drawn_size(weight)
    filters, raw_variance = weight * _by_filter(factor, weight), variance * factor.square()
    scale, shift, running_mean, running_variance = place.tensors()
    parameters = {scale: torch.sqrt(raw_variance + EPSILON) / factor, shift: mean.clone()}
    statistics = {running_mean: (mean - bias) * factor, running_variance: raw_variance}
    if not all(one.isfinite().all() for one in (filters, *parameters.values(), *statistics.values())):
        return False
    weight.copy_(filters)
    step = next(one for one in module.steps if place.value in one.outputs)
    [operator] = TABLE.entries[NORMALIZATION]
    normal = Step(
        node=place.value,
        operator=operator,
        attributes={"epsilon": EPSILON, "momentum": MOMENTUM},
        opset=OPSET,
        inputs=(place.raw, *place.tensors()),
        outputs=step.outputs,
        last_reads=(place.raw,),
    )
    plain = replace(step, inputs=step.inputs[:2], outputs=(place.raw,))
    module.replace(step, [plain, normal], parameters, statistics)
    return True


def _to_drawn_size(weight: torch.Tensor) -> torch.Tensor:
    """By filter the factor to a root mean square of 1 / sqrt(3 n) for n inputs, the size in which torch draws one: from
    uniform numbers up to 1 / sqrt(n). One of zeros stays so.
    """
    size = weight.flatten(1).square().mean(dim=1).sqrt()
    drawn = 1 / math.sqrt(3 * weight[0].numel())
    return torch.where(size > 0, drawn / size, torch.ones_like(size))


def _by_filter(factor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`factor` (filters) so that it multiplies `weight` (filters, ...)."""
    return factor.reshape(-1, *[1] * (weight.dim() - 1))


def _moments(
    module: TrainableGraph, places: list[Place], batches: Batches, context: PassContext
) -> dict[Place, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance of each channel over some training samples, where a sample has places enough of each."""
    sums = {place.value: Sums() for place in places}
    chosen = batches.samples[:: -(-len(batches.samples) // SAMPLES)]
    with torch.no_grad():
        for batch in replace(batches, samples=chosen, targets=(), teacher=None).in_order() if sums else ():
            context.check_time("statistics of what convolutions make")
            for name, made in module.eval()(batch.feed, list(sums)).items():
                sums[name].add(made)
    return {place: sums[place.value].moments() for place in places if sums[place.value].places >= LEAST_PLACES}


@dataclass
class Sums:
    """Of what one convolution made. `places`: the fewest that a sample had of a channel."""

    places: float = math.inf
    count: int = 0
    first: Any = 0.0
    second: Any = 0.0
    dtype: torch.dtype = torch.float32

    def add(self, made: torch.Tensor) -> None:
        """`made` (N, C, ...)."""
        axes = [axis for axis in range(made.dim()) if axis != 1]
        values = math.prod(made.shape[axis] for axis in axes)
        self.places, self.count = min(self.places, values / made.shape[0]), self.count + values
        variance, mean = torch.var_mean(made.double(), dim=axes, correction=0)
        self.first, self.second = self.first + values * mean, self.second + values * (variance + mean.square())
        self.dtype = made.dtype

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.first / self.count
        variance = (self.second / self.count - mean.square()).clamp_min(0)
        return mean.to(self.dtype), variance.to(self.dtype)
