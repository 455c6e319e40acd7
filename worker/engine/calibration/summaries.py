"""Summaries of a model's tensors, made by the runtime that computes them.

Only the summaries leave the runtime: the extremes of each tensor, and a sample of its elements. Nothing else is copied,
and the buffers of what was summarized are reused as ever.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import onnx
from onnx import TensorProto, helper

from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import Feed, open_session, run_session

# Of a tensor of unknown size the first element alone is handed out.
ONLY_THE_FIRST = 1 << 31
PREFIX = "lathe_summary"
# ReduceMin and ReduceMax of ONNX Runtime lose NaN now and then. The sum of magnitudes never does, and is NaN for no
# other reason: what overflows becomes infinite.
REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceL1")
NO_ELEMENTS = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Summary:
    """Of one tensor in one call: exact extremes, and elements `(n,)` float32 at a prime stride, in their order.

    The lower extreme of an empty tensor lies above the upper. Where `has_nan`, they mean nothing.
    """

    low: float
    high: float
    has_nan: bool
    sample: np.ndarray


class Summarizer:
    """A session of a model in which `tensors` (element type by name) are summarized."""

    def __init__(self, model: ModelFile, tensors: dict[str, int], context: PassContext, sampled_elements: int) -> None:
        """At most `sampled_elements` of a tensor are handed out by a call.

        Raises:
            ModelFails: the model does not load.

        """
        self._names = list(tensors)
        self._operators = [*REDUCTIONS, *(("Shape", "Slice") if sampled_elements else ())]
        self._outputs = [_name(operator, number) for operator in self._operators for number in range(len(tensors))]
        self._sampled_elements = sampled_elements
        self._strides = [ONLY_THE_FIRST] * len(tensors) if sampled_elements else []
        loaded = model.load()
        _append(loaded.graph, tensors, self._operators)
        file = save_model(loaded, context.scratch / "summarized")
        del loaded
        self._session = open_session(file.path, context.threads)

    def summaries(self, feed: Feed) -> dict[str, Summary]:
        """By name, from one call; from two where tensors are of other sizes than in the call before.

        Raises:
            ModelFails: the call fails.

        """
        found = self._run(feed)
        if self._strides:
            wanted = [stride_of(int(shape[1]), self._sampled_elements) for shape in found["Shape"]]
            if wanted != self._strides:
                self._strides = wanted
                found = self._run(feed)
        samples = found.get("Slice", [NO_ELEMENTS] * len(self._names))
        return {
            name: Summary(low.item(), high.item(), math.isnan(norm.item()), sample.reshape(-1))
            for name, low, high, norm, sample in zip(
                self._names, *(found[operator] for operator in REDUCTIONS), samples, strict=True
            )
        }

    def _run(self, feed: Feed) -> dict[str, list[np.ndarray]]:
        """What each of the operators made of each of the tensors."""
        strides = {_name("stride", number): np.array([stride]) for number, stride in enumerate(self._strides)}
        found = iter(run_session(self._session, feed | strides, self._outputs))
        return {operator: list(islice(found, len(self._names))) for operator in self._operators}


@lru_cache(maxsize=4096)
def stride_of(size: int, most: int) -> int:
    """The smallest prime that leaves at most `most` of `size` elements; 1 where all fit.

    A prime favours none of the rows and channels, unless it happens to be their very length.
    """
    wanted = -(-size // most)
    while wanted > 1 and any(wanted % divisor == 0 for divisor in range(2, int(wanted**0.5) + 1)):
        wanted += 1
    return max(1, wanted)


def _append(graph: onnx.GraphProto, tensors: dict[str, int], operators: list[str]) -> None:
    """Every operator on every tensor as one row, each with an output of its own.

    The runtime computes the outputs whose nodes come last in the file first, with what they need. So the first tensor's
    come last: each tensor is summarized as soon as it is there, while it lies in the cache, and then let go of.
    """
    bounds = (("first", 0), ("end", np.iinfo(np.int64).max), ("axis", 1)) if "Slice" in operators else ()
    for name, value in bounds:
        graph.initializer.append(helper.make_tensor(_name(name), TensorProto.INT64, [1], [value]))
    for number, (tensor, element_type) in reversed(list(enumerate(tensors.items()))):
        source, row = tensor, _name("row", number)
        if element_type != TensorProto.FLOAT:
            source = _name("float", number)
            graph.node.append(helper.make_node("Cast", [tensor], [source], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Flatten", [source], [row], axis=0))
        for operator in operators:
            inputs, kind = [row], TensorProto.INT64 if operator == "Shape" else TensorProto.FLOAT
            if operator == "Slice":
                stride = _name("stride", number)
                graph.input.append(helper.make_tensor_value_info(stride, TensorProto.INT64, [1]))
                inputs += [_name("first"), _name("end"), _name("axis"), stride]
            graph.node.append(helper.make_node(operator, inputs, [_name(operator, number)]))
            graph.output.append(helper.make_tensor_value_info(_name(operator, number), kind, None))


def _name(what: str, number: int | None = None) -> str:
    return f"{PREFIX}_{what}" if number is None else f"{PREFIX}_{what}_{number}"
