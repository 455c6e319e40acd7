"""Summaries of a model's tensors, made by the runtime that computes them.

Only the summaries leave the runtime: the extremes of each tensor, and a sample of its elements. Nothing else is copied,
and the buffers of what was summarized are reused as ever.
"""

import math
from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper

from worker.engine.calibration.as_executed import BLOCKED_DOMAIN, MOST_LANES, AsExecuted, as_executed
from worker.engine.calibration.magnitudes import LARGEST_USUAL
from worker.engine.calibration.sizes import Sizes
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import NONE, Feed, open_session, run_session, session_options

# Of a tensor of unknown size the first element alone is handed out.
ONLY_THE_FIRST = 1 << 31
PREFIX = "lathe_summary"
# ReduceMin, ReduceMax and GlobalMaxPool of ONNX Runtime lose NaN now and then. The sum of magnitudes never does, and is
# NaN for no other reason: what overflows becomes infinite.
LOW, HIGH, NORM, SHAPE, SAMPLE = "ReduceMin", "ReduceMax", "ReduceL1", "Shape", "Slice"
ZERO, NO_ELEMENTS = np.zeros(1, np.float32), np.zeros(0, np.float32)


@dataclass(frozen=True)
class Summary:
    """Of one tensor in one call: exact extremes, and elements `(n,)` float32 at a prime stride, in their order.

    Of a tensor in blocks of channels they are 16 neighbours of a block at a time, in the order of the blocks. Behind a
    rectifier `low` is 0. That of an empty tensor lies above `high`. Where `has_nan`, neither means anything.
    """

    low: float
    high: float
    has_nan: bool
    sample: np.ndarray

    @property
    def magnitude(self) -> float:
        """The largest; 0 of an empty tensor."""
        return max(self.high, -self.low) if self.low <= self.high else 0.0

    @property
    def is_finite(self) -> bool:
        """Whether no element was NaN or infinite."""
        is_empty = self.low > self.high
        return not self.has_nan and (is_empty or (math.isfinite(self.low) and math.isfinite(self.high)))


class UnusualValues(Exception):
    """Something holds NaN or is so large that NaN can be made of it: more has to be looked through for NaN."""


class Summarizer:
    """A session of a model in which `tensors` (element type by name) are summarized. Calls may overlap."""

    def __init__(
        self,
        model: ModelFile,
        tensors: dict[str, int],
        context: PassContext,
        sampled_elements: int,
        threads: int,
        thorough: bool = False,
    ) -> None:
        """At most `sampled_elements` of a tensor are handed out by a call, which takes so many `threads`.

        Where `thorough`, all tensors are looked through for NaN; else those that can hold one though what they are made
        of does not.

        Raises:
            ModelFails: the model does not load.

        """
        self._names = list(tensors)
        self._sampled_elements = sampled_elements
        self._sizes = Sizes(model.structure(), tensors)
        # Of the others, as in the last call.
        self._latest = dict[str, int]()
        executed = as_executed(model, tensors, context)
        trusted = {} if thorough else executed.without_nan
        self._relied_upon = frozenset[str]().union(*trusted.values())
        self._lanes = [MOST_LANES if name in executed.blocked else 1 for name in tensors]
        self._outputs = _append(executed, tensors, bool(sampled_elements), trusted, self._sizes)
        path = executed.folder / "summarized.onnx"
        path.write_bytes(executed.model.SerializeToString())
        self._session = open_session(path, threads, session_options(threads, NONE))

    def summaries(self, feed: Feed) -> dict[str, Summary]:
        """By name, from one call; from two where no shape told how large a tensor is, and it is not as in the last one.

        Raises:
            ModelFails: the call fails.
            UnusualValues: only who is thorough can tell.

        """
        sizes = self._sizes.of(feed)
        strides = self._strides(sizes | self._latest)
        found = self._run(feed, strides)
        shapes = {name: found.get(_name(SHAPE, number)) for number, name in enumerate(self._names)}
        latest = {name: math.prod(shape.tolist()) for name, shape in shapes.items() if shape is not None}
        if (wanted := self._strides(sizes | latest)) != strides:
            self._latest = latest
            found = self._run(feed, wanted)
        told = {
            name: Summary(
                low=found.get(_name(LOW, number), ZERO).item(),
                high=found[_name(HIGH, number)].item(),
                has_nan=math.isnan(found.get(_name(NORM, number), ZERO).item()),
                sample=found.get(_name(SAMPLE, number), NO_ELEMENTS).reshape(-1),
            )
            for number, name in enumerate(self._names)
        }
        if any(told[name].has_nan or told[name].magnitude > LARGEST_USUAL for name in self._relied_upon):
            raise UnusualValues
        return told

    def _strides(self, sizes: dict[str, int]) -> list[int]:
        """None where nothing is sampled."""
        if not self._sampled_elements:
            return []
        return [
            stride_of(sizes[name] // lanes, self._sampled_elements // lanes) if name in sizes else ONLY_THE_FIRST
            for name, lanes in zip(self._names, self._lanes, strict=True)
        ]

    def _run(self, feed: Feed, strides: list[int]) -> dict[str, np.ndarray]:
        """What each of the operators made of each of the tensors, by the name of that output."""
        given = {_name("stride", number): np.array([stride]) for number, stride in enumerate(strides)}
        return dict(zip(self._outputs, run_session(self._session, feed | given, self._outputs), strict=True))


@lru_cache(maxsize=4096)
def stride_of(size: int, most: int) -> int:
    """The smallest prime that leaves at most `most` of `size` elements; 1 where all fit.

    A prime favours none of the rows and channels, unless it happens to be their very length.
    """
    wanted = -(-size // most)
    while wanted > 1 and any(wanted % divisor == 0 for divisor in range(2, int(wanted**0.5) + 1)):
        wanted += 1
    return max(1, wanted)


def _append(
    executed: AsExecuted, tensors: dict[str, int], sampled: bool, trusted: Container[str], sized: Container[str]
) -> list[str]:
    """Every operator that is needed on every tensor, each with an output of its own; their names.

    Those `trusted` are not looked through for NaN, and of those `sized` no shape is told.

    The runtime computes the outputs whose nodes come last in the file first, with what they need. So the first tensor's
    come last: each tensor is summarized as soon as it is there, while it lies in the cache, and then let go of.
    """
    graph, outputs = executed.model.graph, []
    for number, (tensor, element_type) in reversed(list(enumerate(tensors.items()))):
        row, stride, blocked = _name("row", number), _name("stride", number), executed.blocked.get(tensor)
        graph.node.extend(_as_lines(blocked, row) if blocked else _as_row(tensor, element_type, row))
        highest = row
        if blocked:
            # In blocks it is the faster one; the other way round it is the slower.
            highest = _name("highest", number)
            graph.node.append(helper.make_node("GlobalMaxPool", [blocked], [highest], domain=BLOCKED_DOMAIN))
        inputs = {HIGH: [highest]}
        if tensor not in trusted:
            inputs[NORM] = [row]
        if tensor not in executed.rectified:
            inputs[LOW] = [row]
        if sampled and tensor not in sized:
            inputs[SHAPE] = [row]
        if sampled:
            graph.input.append(helper.make_tensor_value_info(stride, TensorProto.INT64, [1]))
            axis = _name("lines" if blocked else "columns")
            inputs[SAMPLE] = [row, _name("first"), _name("end"), axis, stride]
        for operator, names in inputs.items():
            made, kind = _name(operator, number), TensorProto.INT64 if operator == SHAPE else TensorProto.FLOAT
            graph.node.append(helper.make_node(operator, names, [made]))
            graph.output.append(helper.make_tensor_value_info(made, kind, None))
            outputs.append(made)
    end = np.iinfo(np.int64).max
    constants = {"first": [0], "end": [end], "lines": [0], "columns": [1], "lanes": [-1, MOST_LANES]}
    read = {name for node in graph.node for name in node.input}
    for name, values in constants.items():
        # In files of the oldest kind the runtime knows no constant that nobody reads.
        if _name(name) in read:
            graph.initializer.append(helper.make_tensor(_name(name), TensorProto.INT64, [len(values)], values))
    return outputs


def _as_lines(blocked: str, lines: str) -> list[onnx.NodeProto]:
    """`(n / 16, 16)` of blocks of channels."""
    return [helper.make_node("Reshape", [blocked, _name("lanes")], [lines])]


def _as_row(tensor: str, element_type: int, row: str) -> list[onnx.NodeProto]:
    """`(1, n)` in float32."""
    if element_type == TensorProto.FLOAT:
        return [helper.make_node("Flatten", [tensor], [row], axis=0)]
    return [
        helper.make_node("Cast", [tensor], [f"{row}_float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", [f"{row}_float"], [row], axis=0),
    ]


def _name(what: str, number: int | None = None) -> str:
    return f"{PREFIX}_{what}" if number is None else f"{PREFIX}_{what}_{number}"
