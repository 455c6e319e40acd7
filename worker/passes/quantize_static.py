"""INT8 weights and activations with ranges from calibration data.

Q/DQ placement is that of `onnxruntime.quantization` (unsigned activations, asymmetric; signed weights, symmetric, per
output channel; 32-bit biases): B. Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, CVPR 2018, arXiv:1712.05877. Ranges are Lathe's own (`worker.engine.calibration`).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization import quantize_static as quantize

from app.recipes.quantization import QuantizeStatic
from worker.engine.calibration import Calibration, Settings, calibrate, write_ranges
from worker.engine.graph import name_nodes, restore_face
from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile, save_model
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import operator_counts, prepare
from worker.engine.processor import needs_reduced_range
from worker.engine.quantization import (
    STATIC_OPERATORS,
    TRANSFORMER_OPERATORS,
    is_quantized,
    is_transformer,
    slow_in_int8,
)
from worker.engine.quiet import quiet

PREPARED, CALIBRATED = 0.1, 0.8


@dataclass(frozen=True)
class Plan:
    """What to quantize, and where the ranges are written."""

    operators: list[str]
    exclude: list[str]
    reduce_range: bool
    ranges: Path


def apply(model: ModelFile, config: QuantizeStatic, context: PassContext) -> PassResult:
    """Notes name the nodes left in float and why."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    feed = next(context.feeds.calls(1)).feed
    preparation = prepare(model, feed, context.scratch, context.threads)
    prepared = preparation.model
    structure = prepared.structure()
    operators, notes = _operators(config, structure)
    context.progress(PREPARED)
    context.check_time("calibrating")
    context.phase("calibrating")
    settings = Settings(config.calibration_method, config.percentile, config.calibration_samples)
    calibration = calibrate(
        prepared, settings, context, lambda share: context.progress(PREPARED + (CALIBRATED - PREPARED) * share)
    )
    notes = [*preparation.notes, *notes, *_calibration_notes(calibration, config, context)]
    exclude, reasons = _excluded(config, structure, calibration)
    notes.extend(reasons)
    context.phase("quantizing")
    reduce_range = needs_reduced_range() if config.reduce_range is None else config.reduce_range
    ranges = context.scratch / "ranges.json"
    write_ranges(calibration, ranges)
    made = _quantize(prepared, config, Plan(operators, exclude, reduce_range, ranges), context.scratch)
    restore_face(made, model.structure())
    name_nodes(made)
    before, after = operator_counts(structure), operator_counts(made)
    if "DequantizeLinear" not in after:
        return PassResult(model, False, [*notes, "No operator of the model could be quantized; nothing was changed."])
    notes.append(f"Weights in {'7' if reduce_range else '8'} bits, activations in unsigned 8 bits.")
    result = save_model(made, context.scratch / "result")
    context.progress(1.0)
    manifest = {
        "operators": operators,
        "excluded": exclude,
        "reduce_range": reduce_range,
        "calibration_samples": calibration.sample_count,
        "calibration_order": "the order of the dataset, one sample a call",
        "operator_counts": {"before": before, "after": after},
    }
    return PassResult(result, True, notes, manifest)


def _operators(config: QuantizeStatic, structure: onnx.ModelProto) -> tuple[list[str], list[str]]:
    if config.operators is not None:
        return config.operators, []
    if is_transformer(structure):
        note = (
            "A transformer: only products with a weight matrix were quantized; attention scores, Softmax, "
            "LayerNormalization and residual sums stay in float."
        )
        return list(TRANSFORMER_OPERATORS), [note]
    return list(STATIC_OPERATORS), []


def _excluded(
    config: QuantizeStatic, structure: onnx.ModelProto, calibration: Calibration
) -> tuple[list[str], list[str]]:
    """Names of nodes to leave in float, and why, in words."""
    slow = {} if config.operators is not None else slow_in_int8(structure)
    products = _products_of_activations(structure) if config.operators is None and is_transformer(structure) else []
    not_finite = set(calibration.not_finite)
    broken = [node.name for node in structure.graph.node if not_finite & {*node.input, *node.output}]
    notes = [
        f"{count} {reason} nodes stay in float: slower in 8 bits." for reason, count in Counter(slow.values()).items()
    ]
    if broken:
        notes.append(
            f"{len(broken)} nodes stay in float: NaN or infinity passed through them: {', '.join(broken[:5])}."
        )
    unknown = sorted(set(config.exclude) - {node.name for node in structure.graph.node})
    if unknown:
        notes.append(f"`exclude` names nodes that the prepared graph does not have: {', '.join(unknown[:10])}.")
    return [*config.exclude, *slow, *products, *broken], notes


def _products_of_activations(structure: onnx.ModelProto) -> list[str]:
    """Attention: both operands are computed, and lose too much in 8 bits."""
    constants = {tensor.name for tensor in structure.graph.initializer}
    return [
        node.name
        for node in structure.graph.node
        if node.op_type in TRANSFORMER_OPERATORS and constants.isdisjoint(node.input)
    ]


def _calibration_notes(calibration: Calibration, config: QuantizeStatic, context: PassContext) -> list[str]:
    notes = [
        f"Ranges of {len(calibration.ranges)} tensors from {calibration.sample_count} samples of "
        f"{context.feeds.source} ({config.calibration_method})."
    ]
    if calibration.sample_count < min(config.calibration_samples, context.feeds.sample_count):
        notes.append("Calibration stopped early: the job's time ran short.")
    return notes


def _quantize(prepared: ModelFile, config: QuantizeStatic, plan: Plan, scratch: Path) -> onnx.ModelProto:
    target = scratch / "raw" / "model.onnx"
    target.parent.mkdir()
    transformer = is_transformer(prepared.structure())
    with quiet(scratch):
        quantize(
            str(prepared.path),
            str(target),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=plan.operators,
            per_channel=config.per_channel,
            reduce_range=plan.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=plan.exclude,
            use_external_data_format=prepared.size_bytes() > MAX_SINGLE_FILE_BYTES,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=plan.ranges,
            extra_options={
                "WeightSymmetric": True,
                "ActivationSymmetric": False,
                # Without Q behind it a product runs as MatMulIntegerToFloat: as fast, and its output is not rounded.
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"] if transformer else [],
            },
        )
    made = ModelFile(target).load()
    _spare_float_readers(made, prepared.structure(), plan)
    return made


def _spare_float_readers(made: onnx.ModelProto, prepared: onnx.ModelProto, plan: Plan) -> None:
    """Let float nodes read a float tensor itself, not its copy through 8 bits.

    The tool sends every reader of a tensor through Q and DQ, a residual sum beside a quantized product too. Where the
    tensor's maker is quantized it must stay so: its kernel forms only if Q is its one reader.
    """
    in_int8 = {node.name for node in prepared.graph.node if node.op_type in plan.operators} - set(plan.exclude)
    fixed = {name for node in prepared.graph.node if node.name in in_int8 for name in node.output}
    quantized = {node.output[0]: node.input[0] for node in made.graph.node if node.op_type == "QuantizeLinear"}
    copies = {
        node.output[0]: quantized[node.input[0]]
        for node in made.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }
    for node in made.graph.node:
        if node.name in in_int8 or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for position, name in enumerate(node.input):
            if name in copies and copies[name] not in fixed:
                node.input[position] = copies[name]
