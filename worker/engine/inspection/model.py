"""The inspection of a model as a whole: first what would make opening it unsafe, then whether it opens, then facts."""

import math
from pathlib import Path

from onnx import ModelProto

from app.models.inspection import ModelInspection, TensorSpec
from worker.engine.inspection import (
    bounds,
    macs,
    operators,
    reading,
    session,
    shapes,
    specs,
    tensors,
    walk,
)
from worker.engine.model_faults import CorruptModel, OverlongName, TooManyNames, UnloadableModel
from worker.engine.trainable import claims

MAX_PRODUCER_CHARACTERS = 200


def inspect(path: Path) -> ModelInspection:
    """Facts of the model at `path`, whose external data lies in the same folder.

    Raises:
        UserFault: the model cannot be served; subclasses say why.

    """
    try:
        model = reading.read_proto(path)
        tensors.check_tensors(model, path.parent)
        operators.check_functions(model)
        outputs = _load(path, model)
        return _bounded(_facts(model, outputs))
    except UnicodeDecodeError as error:
        raise CorruptModel(f"A text attribute of the model is not UTF-8: {error}.", reading.COPY_AGAIN) from error


def _load(path: Path, model: ModelProto) -> list[TensorSpec]:
    """The outputs, with what ONNX Runtime knows of them. Its session is gone before more memory is asked for."""
    try:
        return specs.output_specs(model, session.load(path))
    except UnloadableModel:
        operators.check_operators(model)
        raise


def _facts(model: ModelProto, outputs: list[TensorSpec]) -> ModelInspection:
    inputs = specs.input_specs(model)
    parameter_count, holds_weights = _parameter_count(model), claims.holds_weights(model)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    shapes.bind_batch(model)
    shapes.strip_weights(model)
    inlined = shapes.inline_functions(model)
    counts = operators.count_operators(inlined or model)
    blockers = claims.unsupported(inlined or model)
    return ModelInspection(
        inputs=inputs,
        outputs=outputs,
        opset=reading.default_opset(model) or 0,
        ir_version=model.ir_version,
        domains={domain: version for domain, version in domains.items() if domain not in reading.DEFAULT_DOMAINS},
        producer=f"{model.producer_name} {model.producer_version}".strip()[:MAX_PRODUCER_CHARACTERS] or None,
        parameter_count=parameter_count,
        mac_count=_mac_count(inlined, counts) if inlined else None,
        operators=counts,
        trainable=holds_weights and not blockers,
        training_blockers=blockers,
    )


def _bounded(found: ModelInspection) -> ModelInspection:
    """Raises OverlongName, TooManyNames."""
    for what, described in (("an input", found.inputs), ("an output", found.outputs)):
        bounds.check_names((spec.name for spec in described), what, OverlongName)
        axes = (axis for spec in described for axis in spec.shape or () if isinstance(axis, str))
        bounds.check_names(axes, f"an axis of {what}", OverlongName)
    size_bytes = bounds.excess_bytes(found)
    if size_bytes is not None:
        raise TooManyNames(
            f"The {len(found.inputs):,} inputs, {len(found.outputs):,} outputs and {len(found.operators):,} kinds of "
            f"operators take {size_bytes:,} bytes to name; {bounds.MAX_INSPECTION_BYTES:,} is the most accepted.",
            "Export fewer inputs and outputs, or give them, and the functions of the model, shorter names.",
        )
    return found


def _mac_count(model: ModelProto, counts: dict[str, int]) -> int | None:
    """Of a model whose batch axis is bound and whose functions are inlined; None where a shape cannot be known."""
    known = shapes.infer(model)
    if known is None:
        return None
    if any("." in name for name in counts):
        shapes.infer_fused(model, known)
    return macs.count_macs(model, known)


def _parameter_count(model: ModelProto) -> int:
    """Elements of all initializers, those of subgraphs included; of sparse ones, the values that are stored."""
    return sum(
        math.prod(tensor.dims)
        for graph in walk.graphs(model.graph)
        for tensor in [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    )
