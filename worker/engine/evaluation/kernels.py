"""Probe: which kernels ran and for how long, by ONNX Runtime's profiler.

A quantized convolution shows as QLinearConv, a dynamic product as MatMulIntegerToFloat or DynamicQuantizeMatMul: what
is reported is the graph that ran, not the file's.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from app.jobs.report import Kernels, KernelTime
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.one_call import OneCall
from worker.engine.evaluation.requests import KernelReport
from worker.engine.model_file import ModelFile
from worker.engine.profiling import Kind, NodeTime, profile

COULD_BE_INT8 = {"Conv": "Conv", "FusedConv": "Conv", "MatMul": "MatMul", "FusedMatMul": "MatMul"}
COULD_BE_INT8 |= {"Gemm": "Gemm", "FusedGemm": "Gemm"}


@dataclass
class Spent:
    """Milliseconds a call and nodes of one operator in one kind."""

    milliseconds: float = 0.0
    nodes: int = 0


def measure(request: OneCall) -> KernelReport:
    """Shares over as many calls as `seconds` allows, one warm-up call left out."""
    feed = next(request.feed.open().calls(1)).feed
    model = ModelFile(Path(request.model))
    return summarize(profile(model, feed, request.threads, Path(request.folder), request.seconds, request.device))


def summarize(times: list[NodeTime]) -> KernelReport:
    """Shares of kernel time by operator and kind."""
    spent: dict[tuple[str, Kind], Spent] = defaultdict(Spent)
    float_nodes: dict[str, dict[str, float]] = defaultdict(dict)
    for time in times:
        spent[time.operator, time.kind].milliseconds += time.milliseconds
        spent[time.operator, time.kind].nodes += 1
        if time.kind == "float" and time.operator in COULD_BE_INT8:
            float_nodes[COULD_BE_INT8[time.operator]][time.name] = time.milliseconds
    total = max(sum(entry.milliseconds for entry in spent.values()), 1e-9)
    return KernelReport(
        kernels=_kernels(spent, total),
        float_nodes={operator: sorted(names, key=lambda name: -names[name]) for operator, names in float_nodes.items()},
        float_node_shares={operator: sum(names.values()) / total for operator, names in float_nodes.items()},
        quantized=any(kind == "int8" for _, kind in spent),
    )


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


def main() -> None:
    serve_probe(OneCall, measure)


if __name__ == "__main__":
    main()
