"""INT8 weights; activations are quantized at run time by their range in that call. Needs no data.

For products with a weight matrix, and LSTM. Convolutions never: their dynamic kernel is up to four times slower than
float. Tool: `onnxruntime.quantization.quantize_dynamic`.
"""

from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as quantize

from app.recipes.quantization import QuantizeDynamic
from worker.engine.graph import STANDARD_DOMAINS, name_nodes, restore_face
from worker.engine.kinds import is_quantized
from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile, save_model
from worker.engine.nodes import MATRIX_RANK
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import operator_counts, prepare
from worker.engine.processor import needs_reduced_range
from worker.engine.quiet import quiet

PREPARED = 0.4
QUANTIZED_FORMS = ("MatMulInteger", "DynamicQuantizeLSTM", "QAttention")


def apply(model: ModelFile, config: QuantizeDynamic, context: PassContext) -> PassResult:
    """Notes say how many nodes of each kind were quantized, and what was left alone."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    feed = next(context.feeds.calls(1)).feed
    preparation = prepare(model, feed, context.scratch, context.threads)
    context.progress(PREPARED)
    context.check_time("quantizing")
    context.phase("quantizing")
    structure = preparation.model.structure()
    exclude, notes = _excluded(config, structure)
    reduce_range = needs_reduced_range() if config.reduce_range is None else config.reduce_range
    made = _quantize(preparation.model, config, exclude, reduce_range, context.scratch)
    restore_face(made, model.structure())
    name_nodes(made)
    notes = [*preparation.notes, *notes]
    before, after = operator_counts(structure), operator_counts(made)
    quantized = {name: after[name] for name in QUANTIZED_FORMS if after.get(name)}
    if not quantized:
        return PassResult(model, False, [*notes, "No operator of the model could be quantized; nothing was changed."])
    notes.append("Quantized: " + ", ".join(f"{count} {name}" for name, count in quantized.items()) + ".")
    if before.get("Conv"):
        notes.append(f"{before['Conv']} Conv nodes stay in float: quantized at run time they are slower.")
    result = save_model(made, context.scratch / "result")
    context.progress(1.0)
    manifest = {
        "operators": list(config.operators),
        "excluded": exclude,
        "reduce_range": reduce_range,
        "operator_counts": {"before": before, "after": after},
    }
    return PassResult(result, True, notes, manifest)


def _excluded(config: QuantizeDynamic, structure: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of nodes to leave in float, and why, in words."""
    names = {node.name for node in structure.graph.node}
    notes = []
    exclude = [*config.exclude]
    wanted = Counter(config.operators)
    # The tool turns Gemm into MatMul before it looks at names and types.
    for operator in ("MatMul", "Gemm"):
        if operator not in wanted:
            exclude.extend(node.name for node in structure.graph.node if node.op_type == operator)
    unfit = _unfit(structure.graph)
    if unfit:
        exclude.extend(unfit)
        notes.append(f"{len(unfit)} nodes have no kernel that quantizes at run time: {', '.join(unfit[:5])}.")
    unknown = sorted(set(config.exclude) - names)
    if unknown:
        notes.append(f"`exclude` names nodes that the prepared graph does not have: {', '.join(unknown[:10])}.")
    # The tool renames a Gemm that it rewrites.
    renamed = [
        f"{node.name}_MatMul" for node in structure.graph.node if node.op_type == "Gemm" and node.name in exclude
    ]
    return [*exclude, *renamed], notes


def _unfit(graph: onnx.GraphProto) -> list[str]:
    """Nodes that the tool would turn into something that does not run.

    Its kernel multiplies by one matrix, not by a stack of them or a vector; and it takes ONNX's own Attention for
    that of the runtime, whose inputs are others.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    products = [
        node for node in graph.node if node.op_type == "MatMul" and ranks.get(node.input[1], MATRIX_RANK) != MATRIX_RANK
    ]
    standard = [node for node in graph.node if node.op_type == "Attention" and node.domain in STANDARD_DOMAINS]
    return [node.name for node in (*products, *standard)]


def _quantize(
    prepared: ModelFile, config: QuantizeDynamic, exclude: list[str], reduce_range: bool, scratch: Path
) -> onnx.ModelProto:
    target = scratch / "raw" / "model.onnx"
    target.parent.mkdir()
    operators = {"MatMul" if operator == "Gemm" else operator for operator in config.operators}
    with quiet(scratch):
        quantize(
            str(prepared.path),
            str(target),
            op_types_to_quantize=sorted(operators),
            per_channel=config.per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            use_external_data_format=prepared.size_bytes() > MAX_SINGLE_FILE_BYTES,
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
    return ModelFile(target).load()
