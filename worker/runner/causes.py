"""What lies behind the numbers, in words, most important first."""

from collections import Counter, defaultdict
from dataclasses import dataclass

import onnx

from app.jobs.report import Deployment, DeploymentCheck, Interval, Step
from app.recipes.request import OptimizeRequest
from worker.engine.evaluation.requests import KernelReport
from worker.engine.float16.halves import half_elements
from worker.engine.graph import nodes_of
from worker.engine.model_file import ModelFile
from worker.engine.processor import needs_reduced_range
from worker.engine.reasons import counted
from worker.runner.job_data import JobData
from worker.runner.measuring import Subject

NAMED_NODES = 5
NAMED_REASONS = 3
# Below this much of a gain a reader asks why there is none.
WORTHWHILE = 1.2
LARGE_SHARE = 0.15
TABLE_SHARE = 0.5
SMALL_CALL_MS = 0.1
INT8_BITS = 8
STATIC = frozenset({"quantize_static"})
QUANTIZING = STATIC | {"quantize_aware_training", "quantize_dynamic", "quantize_weights"}


@dataclass(frozen=True)
class Evidence:
    """What causes are read from."""

    request: OptimizeRequest
    data: JobData
    steps: list[Step]
    baseline: Subject
    candidate: Subject
    ratio: Interval
    baseline_ms: float
    deployment: Deployment | None = None

    def passes_that_worked(self) -> list[str]:
        return [step.pass_ for step in self.steps if step.modified]


def find_causes(evidence: Evidence) -> list[str]:
    """Ordered: what speaks against using the file, what makes the figures mean less, what keeps the model from being
    faster, what keeps it large.
    """
    found = [f"Deployment check failed, `{check.name}`: {check.words}" for check in _failed_checks(evidence)]
    found += [*_about_the_steps(evidence), *_about_the_data(evidence)]
    found += [*_about_speed(evidence), *_about_size(evidence)]
    return found


def _failed_checks(evidence: Evidence) -> list[DeploymentCheck]:
    return [] if evidence.deployment is None else evidence.deployment.failed()


def _about_the_steps(evidence: Evidence) -> list[str]:
    idle = [step.pass_ for step in evidence.steps if not step.modified]
    if len(idle) == len(evidence.steps):
        return ["No pass changed the model: " + "; ".join(_last_note(step) for step in evidence.steps)]
    return [f"`{name}` changed nothing." for name in idle]


def _last_note(step: Step) -> str:
    return f"`{step.pass_}`: {step.notes[-1]}" if step.notes else f"`{step.pass_}` found nothing to do."


def _about_the_data(evidence: Evidence) -> list[str]:
    found = []
    if evidence.data.random_calibration and any(_rounds_activations(step) for step in evidence.steps):
        found.append("Activation ranges were calibrated on random input: accuracy on real input may be far worse.")
    if evidence.data.random_evaluation:
        found.append("No data given: measured on random input, agreement only.")
    return found


def _rounds_activations(step: Step) -> bool:
    return step.modified and step.pass_ in STATIC and step.parameters.get("bits") == INT8_BITS


def _about_speed(evidence: Evidence) -> list[str]:
    kernels, ratio = evidence.candidate.kernels, evidence.ratio
    slower = ratio.value < 1
    found = []
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        found.append(
            f"The change in latency is within the noise: ratio {ratio.value:.2f}, 95 % interval {ratio.low:.2f} to "
            f"{ratio.high:.2f}."
        )
    if evidence.baseline_ms < SMALL_CALL_MS:
        found.append(
            f"The model is small: a call of the original takes {evidence.baseline_ms:.3f} ms, much of it the overhead "
            "of calling, which no pass removes."
        )
    if ratio.value < WORTHWHILE:
        found.extend(_about_placement(evidence.steps))
    if kernels.kernels.conversion_share > LARGE_SHARE:
        lead = "Slower because of conversions" if slower else "Conversions cost time"
        found.append(
            f"{lead}: {kernels.kernels.conversion_share:.0%} of kernel time goes into {_conversions(kernels)}."
        )
    if kernels.quantized:
        found.append(f"{kernels.kernels.int8_share:.0%} of kernel time is 8-bit arithmetic.")
        found.extend(_float_nodes(kernels))
        if needs_reduced_range():
            found.append("This processor has no VNNI: 8-bit products gain little here.")
    if evidence.request.target.device == "cpu" and _is_in_half_by_a_pass(evidence):
        found.append("float16 is computed in float32 on a CPU: it halves the size and makes no arithmetic faster.")
    if "prune_unstructured" in evidence.passes_that_worked():
        found.append("Zeros among weights make nothing faster: ONNX Runtime multiplies by them as by any number.")
    return found


def _is_in_half_by_a_pass(evidence: Evidence) -> bool:
    """And delivered so: `compile` makes float32 of it."""
    converted = "convert_float16" in evidence.passes_that_worked()
    return converted and half_elements(evidence.candidate.model.structure()) > 0


def _about_placement(steps: list[Step]) -> list[str]:
    """Why nodes were left in float, what takes most time first."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    milliseconds: dict[str, float] = defaultdict(float)
    for layer in (layer for step in steps for layer in step.layers):
        if layer.planned == "float" and layer.reason is not None:
            count[layer.reason][layer.operator] += 1
            milliseconds[layer.reason] += layer.float_ms or layer.executed_ms or 0.0
    ranked = sorted(count, key=lambda reason: (-milliseconds[reason], -count[reason].total(), reason))
    return [f"{reason}: {counted(count[reason])} kept in float." for reason in ranked[:NAMED_REASONS]]


def _conversions(kernels: KernelReport) -> str:
    names = [entry.operator for entry in kernels.kernels.by_operator if entry.kind == "conversion"]
    return ", ".join(names[:3])


def _float_nodes(kernels: KernelReport) -> list[str]:
    found = []
    for operator, names in sorted(kernels.float_nodes.items(), key=lambda item: -kernels.float_node_shares[item[0]]):
        share = kernels.float_node_shares[operator]
        some = ", ".join(names[:NAMED_NODES]) + (", ..." if len(names) > NAMED_NODES else "")
        plural = "node" if len(names) == 1 else "nodes"
        found.append(f"float {operator} at {len(names)} {plural} ({share:.0%} of kernel time): {some}.")
    rest = [
        f"{entry.operator} {entry.share:.0%}"
        for entry in kernels.kernels.by_operator
        if entry.kind == "float" and entry.share > LARGE_SHARE and entry.operator not in kernels.float_nodes
    ]
    if rest:
        found.append(f"Operators without an 8-bit form take time in float: {', '.join(rest)}.")
    return found


def _about_size(evidence: Evidence) -> list[str]:
    found = []
    if evidence.candidate.size_bytes > evidence.baseline.size_bytes:
        found.append(_why_larger(evidence))
    share = table_share(evidence.candidate.model)
    if share > TABLE_SHARE:
        found.append(
            f"{share:.0%} of the weights are one table that a Gather reads: only what shrinks it shrinks the file."
        )
    return found


def _why_larger(evidence: Evidence) -> str:
    worked = evidence.passes_that_worked()
    compiled = "compile" in worked
    if evidence.candidate.kernels.quantized or (not compiled and not QUANTIZING.isdisjoint(worked)):
        return "The file grew: names, scales and zero points of the new nodes take more than the smaller weights saved."
    if compiled:
        return "The file grew: `compile` writes weights as this machine's kernels read them, few bits as float32."
    return "The file grew."


def table_share(model: ModelFile) -> float:
    """Bytes of the largest table that a Gather reads, as a share of all tensors."""
    structure = model.structure()
    sizes = {tensor.name: _bytes(tensor) for tensor in structure.graph.initializer}
    tables = [
        sizes.get(node.input[0], 0) for node in nodes_of(structure.graph) if node.op_type == "Gather" and node.input
    ]
    return max(tables, default=0) / max(sum(sizes.values()), 1)


def _bytes(tensor: onnx.TensorProto) -> int:
    elements = 1
    for size in tensor.dims:
        elements *= size
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
