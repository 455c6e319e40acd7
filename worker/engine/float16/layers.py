"""The account of a conversion to float16, node by node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from app.jobs.report import Layer
from worker.engine.float16.conversion import FLOAT, FLOAT16
from worker.engine.float16.signatures import complete_types, half_of, reason_against
from worker.engine.profiling import NodeTime, as_executed, kernels_by_origin
from worker.engine.tensor_fidelity import Tensor


@dataclass(frozen=True)
class Planned:
    """A node of the float32 graph, its first output, and why it stays in float32; None where it does not."""

    name: str
    operator: str
    output: str
    of_graph: bool
    """Whether that is an output of the model."""
    reason: str | None
    makes_float16: bool


def planned(model: ir.Model, kept: Mapping[str, str]) -> list[Planned]:
    """Every node outside of branches and loops that reads or makes float32; `kept` holds reasons by node."""
    complete_types(model)
    found = []
    for node in model.graph:
        name, half = node.name or "", half_of(node, model.opset_imports)
        reason = kept.get(name) or reason_against(node, half)
        if reason is not None or half.inputs or half.outputs:
            output = node.outputs[0]
            made = reason is None and 0 in half.outputs
            found.append(
                Planned(name, node.op_type, output.name or "", output.is_graph_output(), reason, makes_float16=made)
            )
    return found


def compared_tensors(plan: Sequence[Planned], keep_io: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """By node, what it makes in float32 and in the converted file, which keeps names but for outputs of the model."""
    return {
        one.name: (Tensor(one.output), Tensor(one.output, FLOAT if one.of_graph and keep_io else FLOAT16))
        for one in plan
        if one.makes_float16 and one.output
    }


def layers_of(plan: Sequence[Planned], executed: Sequence[NodeTime], sqnr_db: Mapping[str, float]) -> list[Layer]:
    """One a node, in the order of the graph."""
    kernels = kernels_by_origin(executed)
    found = []
    for one in plan:
        operators, milliseconds = as_executed(kernels.get(one.name, []))
        found.append(
            Layer(
                name=one.name,
                operator=one.operator,
                planned="float16" if one.reason is None else "float",
                reason=one.reason,
                executed=operators,
                executed_ms=milliseconds,
                sqnr_db=sqnr_db.get(one.name),
            )
        )
    return found
