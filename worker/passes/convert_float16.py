"""IEEE 754 half precision for weights and arithmetic, float32 where a value would not fit.

P. Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740, section 3, on what half precision cannot
hold. Which nodes there are in float16 is for the operators' schemas to say (`worker.engine.float16`).
"""

from itertools import islice

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from app.recipes.graph import ConvertFloat16
from worker.engine.calibration import Settings, calibrate
from worker.engine.float16.constants import LARGEST, nodes_beyond
from worker.engine.float16.conversion import to_float16
from worker.engine.graph import inputs_of, nodes_of
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import prepared, save_restored
from worker.engine.sessions import Feed, ModelFails, open_session, run_session

# A range seen on some samples is not the largest there is.
HEADROOM = 4.0
CHECKED_CALLS = 8


def apply(model: ModelFile, config: ConvertFloat16, context: PassContext) -> PassResult:
    """Notes say what stays in float32 and why."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        note = (
            "The model computes in 8 bits; half precision in between would only add conversions. Nothing was changed."
        )
        return PassResult(model, False, [note])
    if not _has_float32(model):
        return PassResult(model, False, ["The model holds no float32; nothing was changed."])
    preparation = prepared(model, context, sums_apart=False)
    float_model, notes = preparation.model, preparation.notes
    context.progress(0.4)
    context.phase("converting")
    wide, count = _wide_nodes(float_model, config.calibration_samples, context)
    if wide:
        notes.append(f"{len(wide)} nodes stay in float32, their values leave float16's range: {_some(wide)}.")
    inside = _inside_others(float_model)
    if inside:
        notes.append(
            f"{len(inside)} nodes in branches and loops stay in float32, as nobody sees what passes: {_some(inside)}."
        )
    kept = [*config.keep_float32, *wide, *inside]
    unknown = sorted(set(config.keep_float32) - {node.name for node in nodes_of(float_model.structure().graph)})
    if unknown:
        notes.append(f"`keep_float32` names nodes that the prepared graph does not have: {_some(unknown)}.")
    graph = read_graph(float_model)
    conversion = to_float16(graph, kept, config.keep_io_types)
    if not conversion.changed:
        return PassResult(model, False, [*notes, "No node of the model can compute in float16; nothing was changed."])
    raised = conversion.raised
    if raised:
        notes.append(
            f"{sum(raised.values())} values in {len(raised)} constants were too close to 0 for float16 and became its "
            f"smallest, 6e-08: {_some(sorted(raised))}."
        )
    made = _finished(graph, float_model, config, context)
    try:
        overflow = _overflow(float_model, made, context)
    except RefusedFloat16 as error:
        return PassResult(model, False, [*notes, f"ONNX Runtime does not run it in float16: {str(error)[:300]}"])
    context.progress(1.0)
    if overflow:
        notes.append(f"Output {overflow!r} is NaN or infinite in float16 where float32 is finite: nothing was changed.")
        return PassResult(model, False, notes)
    replay = config.model_dump(mode="json", by_alias=True) | {"calibration_samples": max(1, count)}
    return PassResult(made, True, notes, {"kept_float32": kept, "replay": replay})


class RefusedFloat16(Exception):
    """The converted model does not load, or fails on a call that the float32 model answers."""


def _finished(graph: ir.Model, prepared: ModelFile, config: ConvertFloat16, context: PassContext) -> ModelFile:
    made = save_graph(graph, context.scratch / "converted").load()
    return save_restored(made, prepared, context.scratch / "result", config.keep_io_types)


def _overflow(before: ModelFile, after: ModelFile, context: PassContext) -> str | None:
    """Name of an output that is finite in `before` and not in `after`, on the first calls.

    Raises:
        ModelFails: `before` fails.
        RefusedFloat16: `after` does.

    """
    first = open_session(before.path, context.threads)
    dtypes = {face.name: face.dtype for face in inputs_of(after.structure())}
    names = [str(output.name) for output in first.get_outputs()]
    exact = [(call.feed, run_session(first, call.feed)) for call in islice(context.feeds.calls(1), CHECKED_CALLS)]
    try:
        second = open_session(after.path, context.threads)
        for given, outputs in exact:
            feed: Feed = {name: array.astype(dtypes[name]) for name, array in given.items()}
            for name, left, right in zip(names, outputs, run_session(second, feed), strict=True):
                if _finite(left) and not _finite(right):
                    return name
    except ModelFails as error:
        raise RefusedFloat16(error.detail) from error
    return None


def _finite(array: object) -> bool:
    return not isinstance(array, np.ndarray) or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _inside_others(prepared: ModelFile) -> list[str]:
    """Nodes of branches and loop bodies."""
    graph = prepared.structure().graph
    outside = {node.name for node in graph.node}
    return [node.name for node in nodes_of(graph) if node.name not in outside]


def _wide_nodes(prepared: ModelFile, samples: int, context: PassContext) -> tuple[list[str], int]:
    """Nodes that read or write a value, or read a constant, near or beyond what float16 holds; and how many samples
    there was time to look at.

    Running the converted file would not show them here: on a CPU the runtime computes float16 in float32.
    """
    calibration = calibrate(prepared, Settings(samples=samples), context, lambda _share: None)
    wide = {
        name
        for name, range_ in calibration.ranges.items()
        if max(abs(range_.low), abs(range_.high)) * HEADROOM > LARGEST
    }
    return nodes_beyond(read_graph(prepared), wide), calibration.sample_count


def _has_float32(model: ModelFile) -> bool:
    structure = model.structure()
    values = [*structure.graph.input, *structure.graph.output]
    return any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in values) or any(
        tensor.data_type == TensorProto.FLOAT for tensor in structure.graph.initializer
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
