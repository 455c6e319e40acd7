"""Which nodes ran and for how long, by ONNX Runtime's profiler.

The graph that runs is not the file's: the runtime fuses and rewrites. So what counts is the profile, not the file.
"""

import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worker.engine.model_file import ModelFile
from worker.engine.sessions import Device, Feed, as_taken_by, open_session, run_session, session_options

Kind = Literal["int8", "float", "conversion", "other"]
LEAST_CALLS, MOST_CALLS = 10, 200
ENOUGH_SECONDS = 0.5
# The profiler keeps a million events and drops the rest.
MOST_EVENTS = 900_000
CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "ReorderInput", "ReorderOutput"}
)
INT8_MARKS = ("QLinear", "Integer", "QGemm", "QAttention", "DynamicQuantize", "QEmbed", "NhwcMaxPool", "MatMulNBits")
MOVEMENTS = frozenset(
    (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Gather", "GatherND"),
        *("GatherElements", "Identity", "Expand", "Tile", "Shape", "Size", "Pad", "DepthToSpace", "SpaceToDepth"),
        *("MemcpyFromHost", "MemcpyToHost"),
    )
)
# Their own time is that of the nodes inside, which are listed too.
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
FLOAT_TYPES = ("float", "float16", "double", "bfloat16")
SUFFIX = "_kernel_time"
EIGHT_BITS = ("int8", "uint8")
# What the runtime adds to a node's name, or to that of its output, when it puts a kernel in its place.
ADDED_TO_NAMES = re.compile(r"^fused |(_token_\d+|_nchwc|/duplicated|/[A-Za-z]*Fusion/?)+$")


@dataclass(frozen=True)
class NodeTime:
    """One kernel of the graph that ran. `milliseconds` is the median over the calls after the first."""

    name: str
    operator: str
    kind: Kind
    milliseconds: float
    elements: int

    @property
    def origin(self) -> str:
        """Name of the file's node, or of its output, that this kernel stands for, where the runtime's own tells."""
        return origin_of(self.name)


def origin_of(name: str) -> str:
    """A kernel's name less what the runtime added to it."""
    return ADDED_TO_NAMES.sub("", name)


def kernels_by_origin(times: Iterable[NodeTime]) -> dict[str, list[NodeTime]]:
    """All but conversions, by what they stand for."""
    found: dict[str, list[NodeTime]] = defaultdict(list)
    for one in times:
        if one.kind != "conversion":
            found[one.origin].append(one)
    return found


def as_executed(ran: Sequence[NodeTime]) -> tuple[str | None, float | None]:
    """The operators of kernels, and the milliseconds that they take together; None where none ran."""
    if not ran:
        return None, None
    return ", ".join(dict.fromkeys(one.operator for one in ran)), sum(one.milliseconds for one in ran)


def profile(model: ModelFile, feed: Feed, threads: int, folder: Path, seconds: float, device: Device) -> list[NodeTime]:
    """Times of every kernel, over as many calls of `feed` as `seconds` allows, two at least.

    Raises:
        ModelFails: the model does not load or run.

    """
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = open_session(model.path, threads, options, device)
    feed = as_taken_by(session, feed)
    started = time.perf_counter()
    for number in range(1, min(MOST_CALLS, _calls_kept(model)) + 1):
        run_session(session, feed)
        used = time.perf_counter() - started
        if number > 1 and (used > seconds or (number > LEAST_CALLS and used > ENOUGH_SECONDS)):
            break
    written = Path(session.end_profiling())
    events = json.loads(written.read_text())
    written.unlink()
    return node_times(events)


def _calls_kept(model: ModelFile) -> int:
    """Calls whose events the profiler keeps; a node may run more than once in a loop, hence the margin."""
    return max(2, MOST_EVENTS // (10 * max(1, len(model.structure().graph.node))))


def node_times(events: list[dict[str, Any]]) -> list[NodeTime]:
    """From the events of a profile. The median leaves out one call that was interrupted."""
    runs = [event for event in events if event.get("name") == "model_run"]
    warm = runs[0]["ts"] + runs[0]["dur"] if len(runs) > 1 else 0
    durations: dict[tuple[str, str, Kind, int], list[int]] = defaultdict(list)
    elements: dict[tuple[str, str, Kind, int], int] = {}
    for event in events:
        arguments = event.get("args", {})
        operator = arguments.get("op_name")
        if event.get("cat") != "Node" or not event["name"].endswith(SUFFIX) or operator in CONTROL_FLOW:
            continue
        if event["ts"] >= warm:
            name = event["name"].removesuffix(SUFFIX)
            key = (name, operator, kind_of(operator, arguments), arguments.get("node_index"))
            durations[key].append(event["dur"])
            elements[key] = _elements(arguments.get("output_type_shape", []))
    return [NodeTime(*key[:3], statistics.median(times) / 1e3, elements[key]) for key, times in durations.items()]


def kind_of(operator: str, arguments: dict[str, Any]) -> Kind:
    """By name where the name tells, else by the element types of what went in and came out."""
    if operator in CONVERSIONS:
        return "conversion"
    if operator in MOVEMENTS:
        return "other"
    types = [
        name
        for key in ("input_type_shape", "output_type_shape")
        for tensor in arguments.get(key, [])
        for name in tensor
    ]
    if any(mark in operator for mark in INT8_MARKS):
        return "int8"
    if any(name in FLOAT_TYPES for name in types):
        return "float"
    return "int8" if any(name in EIGHT_BITS for name in types) else "other"


def _elements(tensors: Iterable[dict[str, list[int]]]) -> int:
    """Elements of the first of some tensors as the profiler writes them: `{"float": [1, 3, 224, 224]}`."""
    for tensor in tensors:
        for shape in tensor.values():
            count = 1
            for size in shape:
                count *= size
            return count
    return 0
