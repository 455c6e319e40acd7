"""Probe: which kernels ran and for how long, by ONNX Runtime's profiler.

The graph that runs is not the file's: the runtime fuses and rewrites. A quantized convolution shows as QLinearConv, a
dynamic product as MatMulIntegerToFloat or DynamicQuantizeMatMul; so what counts is the profile, not the file.
"""

import json
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.jobs.report import Kernels, KernelTime
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.requests import KernelReport, OneCall
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session, session_options

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
COULD_BE_INT8 = {"Conv": "Conv", "FusedConv": "Conv", "MatMul": "MatMul", "FusedMatMul": "MatMul"}
COULD_BE_INT8 |= {"Gemm": "Gemm", "FusedGemm": "Gemm"}
FLOAT_TYPES = ("float", "float16", "double", "bfloat16")
SUFFIX = "_kernel_time"
EIGHT_BITS = ("int8", "uint8")


@dataclass
class Spent:
    """Milliseconds a call and nodes of one operator in one kind."""

    milliseconds: float = 0.0
    nodes: int = 0


def measure(request: OneCall) -> KernelReport:
    """Shares over as many calls as `seconds` allows, one warm-up call left out."""
    options = session_options(request.threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(request.folder) / "profile")
    session = open_session(Path(request.model), request.threads, options, request.device)
    feed = next(request.feed.open().calls(1)).feed
    started = time.perf_counter()
    for number in range(1, min(MOST_CALLS, _calls_kept(Path(request.model))) + 1):
        run_session(session, feed)
        used = time.perf_counter() - started
        if number > 1 and (used > request.seconds or (number > LEAST_CALLS and used > ENOUGH_SECONDS)):
            break
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text())
    profile.unlink()
    return summarize(events)


def _calls_kept(model: Path) -> int:
    """Calls whose events the profiler keeps; a node may run more than once in a loop, hence the margin."""
    return max(2, MOST_EVENTS // (10 * max(1, len(ModelFile(model).structure().graph.node))))


def summarize(events: list[dict[str, Any]]) -> KernelReport:
    """Shares of kernel time by operator and kind, from the events of a profile.

    The time of a node is its median over the calls after the first: one call that was interrupted does not count.
    """
    runs = [event for event in events if event.get("name") == "model_run"]
    warm = runs[0]["ts"] + runs[0]["dur"] if len(runs) > 1 else 0
    durations: dict[tuple[str, str, Kind, int], list[int]] = defaultdict(list)
    for event in events:
        arguments = event.get("args", {})
        operator = arguments.get("op_name")
        if event.get("cat") != "Node" or not event["name"].endswith(SUFFIX) or operator in CONTROL_FLOW:
            continue
        if event["ts"] >= warm:
            name = event["name"].removesuffix(SUFFIX)
            key = (name, operator, kind_of(operator, arguments), arguments.get("node_index"))
            durations[key].append(event["dur"])
    spent: dict[tuple[str, Kind], Spent] = defaultdict(Spent)
    float_nodes: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, operator, kind, _), times in durations.items():
        milliseconds = statistics.median(times) / 1e3
        spent[operator, kind].milliseconds += milliseconds
        spent[operator, kind].nodes += 1
        if kind == "float" and operator in COULD_BE_INT8:
            float_nodes[COULD_BE_INT8[operator]][name] = milliseconds
    total = max(sum(entry.milliseconds for entry in spent.values()), 1e-9)
    return KernelReport(
        kernels=_kernels(spent, total),
        float_nodes={operator: sorted(names, key=lambda name: -names[name]) for operator, names in float_nodes.items()},
        float_node_shares={operator: sum(names.values()) / total for operator, names in float_nodes.items()},
        quantized=any(kind == "int8" for _, kind in spent),
    )


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


def _kernels(spent: dict[tuple[str, Kind], Spent], total: float) -> Kernels:
    by_operator = [
        KernelTime(operator=operator, kind=kind, node_count=entry.nodes, share=entry.milliseconds / total)
        for (operator, kind), entry in sorted(spent.items(), key=lambda item: -item[1].milliseconds)
    ]

    def share(kind: Kind) -> float:
        return sum((entry.share for entry in by_operator if entry.kind == kind), 0.0)

    return Kernels(
        int8_share=share("int8"),
        float_share=share("float"),
        conversion_share=share("conversion"),
        other_share=share("other"),
        by_operator=by_operator,
    )


if __name__ == "__main__":
    serve_probe(OneCall, measure)
