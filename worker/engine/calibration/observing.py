"""Watching the tensors of a model while data runs through it.

Extremes are exact; a histogram sees a sample of each tensor, taken at a prime stride so that no row or channel is
favoured. Tensors are exposed in groups of bounded size, a session a group, so memory stays flat for large models too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper

from worker.engine.calibration.histogram import Histogram
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import open_session, run_session

FLOAT = TensorProto.FLOAT
FLOATS = (FLOAT, TensorProto.FLOAT16)
GROUP_ELEMENTS = 64 << 20
SAMPLED_ELEMENTS = 8192


@dataclass
class Observation:
    """What was seen of one tensor. Where NaN or infinity passed, `finite` is false and the histogram lacks them."""

    histogram: Histogram = field(default_factory=Histogram)
    finite: bool = True
    elements: int = 0

    def add(self, array: np.ndarray) -> None:
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if not np.isfinite(low) or not np.isfinite(high):
            self.finite = False
            return
        self.elements = max(self.elements, array.size)
        flat = array.reshape(-1)
        self.histogram.add(flat[:: _stride(flat.size)].astype(np.float32, copy=False), low, high)


def activations(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by name of every float tensor that enters or leaves a node of the main graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {value.name: value for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    found: dict[str, int] = {}
    for node in model.graph.node:
        for name in [*node.input, *node.output]:
            value = known.get(name)
            if value is not None and name not in constants and value.type.tensor_type.elem_type in FLOATS:
                found[name] = value.type.tensor_type.elem_type
    return found


def observe(
    model: ModelFile, tensors: dict[str, int], context: PassContext, samples: int, progress: Callable[[float], None]
) -> tuple[dict[str, Observation], int]:
    """Each tensor of `tensors` (element type by name) over the first `samples`, one a call; and how many were read.

    Stops early when the context's time is over, after one call at least.

    Raises:
        ModelFails: a call fails.

    """
    chosen = np.arange(min(samples, context.feeds.sample_count))
    seen = {name: Observation() for name in tensors}
    groups = list(_groups(model, tensors, context)) if tensors else []
    for number, group in enumerate(groups):
        read = 0
        for read, arrays in enumerate(exposed_calls(model, group, context, chosen, f"observed-{number}"), start=1):
            for name, array in arrays.items():
                seen[name].add(array)
            progress((number + read / len(chosen)) / len(groups))
            if context.seconds_left() <= 0 and number == 0:
                break
        # Every group sees the same samples.
        chosen = chosen[:read]
    return seen, len(chosen)


def exposed_calls(
    model: ModelFile, tensors: dict[str, int], context: PassContext, samples: np.ndarray, folder: str
) -> Iterator[dict[str, np.ndarray]]:
    """The named tensors of every call, by name; but for these the model runs as its user would run it."""
    exposed = model.load()
    _expose(exposed, tensors)
    file = save_model(exposed, context.scratch / folder)
    del exposed
    inputs = {value.name for value in model.structure().graph.input}
    names = [name for name in tensors if name not in inputs]
    session = open_session(file.path, context.threads)
    for call in context.feeds.calls(1, samples):
        made = dict(zip(names, run_session(session, call.feed, names), strict=True)) if names else {}
        yield {name: made[name] if name in made else call.feed[name] for name in tensors}


def _expose(model: onnx.ModelProto, tensors: dict[str, int]) -> None:
    declared = {value.name for value in [*model.graph.output, *model.graph.input]}
    for name, element_type in tensors.items():
        if name not in declared:
            model.graph.output.append(helper.make_tensor_value_info(name, element_type, None))


def _groups(model: ModelFile, tensors: dict[str, int], context: PassContext) -> Iterator[dict[str, int]]:
    """Tensors in groups of at most GROUP_ELEMENTS elements a call, as the first call shows them."""
    sizes = _element_counts(model, tensors, context)
    group: dict[str, int] = {}
    elements = 0
    for name, element_type in tensors.items():
        if group and elements + sizes[name] > GROUP_ELEMENTS:
            yield group
            group, elements = {}, 0
        group[name] = element_type
        elements += sizes[name]
    if group:
        yield group


def _element_counts(model: ModelFile, tensors: dict[str, int], context: PassContext) -> dict[str, int]:
    """Elements of each tensor in the first call. Only their numbers leave the runtime."""
    counted = model.load()
    outputs = [f"lathe_size_{number}" for number in range(len(tensors))]
    for name, output in zip(tensors, outputs, strict=True):
        counted.graph.node.append(helper.make_node("Size", [name], [output]))
        counted.graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, []))
    file = save_model(counted, context.scratch / "sizes")
    del counted
    session = open_session(file.path, context.threads)
    values = run_session(session, next(context.feeds.calls(1)).feed, outputs)
    return {name: int(value) for name, value in zip(tensors, values, strict=True)}


def _stride(size: int) -> int:
    """The smallest prime that leaves at most SAMPLED_ELEMENTS elements; 1 where all fit."""
    wanted = -(-size // SAMPLED_ELEMENTS)
    while wanted > 1 and any(wanted % divisor == 0 for divisor in range(2, int(wanted**0.5) + 1)):
        wanted += 1
    return max(1, wanted)
