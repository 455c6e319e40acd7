"""IEEE 754 half precision for weights and arithmetic, float32 where a value would not fit.

P. Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740, section 3, on what half precision cannot
hold. Which nodes there are in float16 is for the operators' schemas to say (`worker.engine.float16`).
"""

from itertools import islice

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto, TensorProto

from app.recipes.graph import ConvertFloat16
from worker.engine.calibration import Calibration, Settings, calibrate
from worker.engine.float16.constants import LARGEST, nodes_beyond
from worker.engine.float16.conversion import to_float16
from worker.engine.float16.layers import compared_tensors, layers_of, planned
from worker.engine.float16.signatures import float_tensors
from worker.engine.graph import nodes_of
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.inspection import walk
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import prepared, save_restored
from worker.engine.sessions import ModelFails, as_taken_by, open_session, run_session
from worker.engine.tensor_fidelity import LAYER_SAMPLES, tensor_sqnr_db
from worker.engine.timing import profiled

# A range seen on some samples is not the largest there is.
HEADROOM = 4.0
CHECKED_CALLS = 8
PREPARED, CHECKED = 0.4, 0.8
PROFILING_SECONDS = 0.5


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
    context.progress(PREPARED)
    context.phase("converting")
    graph = read_graph(float_model)
    kept, count = _kept(float_model, graph, config, notes, context)
    plan = planned(graph, kept)
    conversion = to_float16(graph, kept, config.keep_io_types)
    if not conversion.changed:
        return PassResult(model, False, [*notes, "No node of the model can compute in float16; nothing was changed."])
    raised = conversion.raised
    if raised:
        notes.append(
            f"{sum(raised.values())} values in {len(raised)} constants were too close to 0 for float16 and became its "
            f"smallest, 6e-08: {_some(sorted(raised))}."
        )
    converted = save_graph(graph, context.scratch / "converted")
    made = save_restored(converted.load(), float_model, context.scratch / "result", config.keep_io_types)
    try:
        overflow = _overflow(float_model, made, context)
    except RefusedFloat16 as error:
        return PassResult(model, False, [*notes, f"ONNX Runtime does not run it in float16: {str(error)[:300]}"])
    if overflow:
        notes.append(f"Output {overflow!r} is NaN or infinite in float16 where float32 is finite: nothing was changed.")
        return PassResult(model, False, notes)
    context.progress(CHECKED)
    pairs = compared_tensors(plan, config.keep_io_types)
    sqnr = tensor_sqnr_db(float_model, converted, pairs, context, LAYER_SAMPLES)
    executed = profiled(made, context, PROFILING_SECONDS)
    context.progress(1.0)
    replay = config.model_dump(mode="json", by_alias=True) | {"calibration_samples": max(1, count)}
    manifest = {"kept_float32": list(kept), "replay": replay}
    return PassResult(made, True, notes, manifest, layers_of(plan, executed, sqnr))


def _kept(
    float_model: ModelFile, graph: ir.Model, config: ConvertFloat16, notes: list[str], context: PassContext
) -> tuple[dict[str, str], int]:
    """Nodes that stay in float32, and why; and how many samples were looked at.

    Running the converted file would not show what overflows: on a CPU the runtime computes float16 in float32.
    """
    settings, tensors = Settings(samples=config.calibration_samples), float_tensors(graph)
    calibration = calibrate(float_model, settings, context, lambda _share: None, tensors)
    unseen = {name for name, range_ in calibration.not_finite.items() if range_ is None}
    wide = nodes_beyond(graph, _wide(calibration))
    unknown_range = [name for name in nodes_beyond(graph, unseen) if name not in set(wide)]
    if wide:
        notes.append(f"{len(wide)} nodes stay in float32, their values leave float16's range: {_some(wide)}.")
    notes.extend(_not_finite_in_words(calibration, unknown_range))
    inside = _inside_others(float_model)
    if inside:
        notes.append(
            f"{len(inside)} nodes in branches and loops stay in float32, as nobody sees what passes: {_some(inside)}."
        )
    unknown = sorted(set(config.keep_float32) - {node.name for node in nodes_of(float_model.structure().graph)})
    if unknown:
        notes.append(f"`keep_float32` names nodes that the prepared graph does not have: {_some(unknown)}.")
    kept = (
        dict.fromkeys(inside, "inside a branch or a loop")
        | dict.fromkeys(unknown_range, "NaN or infinity passed through it in every sample, so its range is not known")
        | dict.fromkeys(wide, "its values leave float16's range")
        | dict.fromkeys(config.keep_float32, "kept so, as asked")
    )
    return kept, calibration.sample_count


def _wide(calibration: Calibration) -> set[str]:
    """Tensors with a value near or beyond what float16 holds, in a call in which they were finite."""
    known = {name: range_ for name, range_ in calibration.not_finite.items() if range_ is not None}
    return {
        name
        for name, range_ in (calibration.ranges | known).items()
        if max(abs(range_.low), abs(range_.high)) * HEADROOM > LARGEST
    }


def _not_finite_in_words(calibration: Calibration, unknown_range: list[str]) -> list[str]:
    found = []
    sometimes = [name for name, range_ in calibration.not_finite.items() if range_ is not None]
    if sometimes:
        found.append(
            f"NaN or infinity passed through {len(sometimes)} tensors in some samples, which say nothing of their "
            f"range: {_some(sometimes)}."
        )
    if unknown_range:
        found.append(
            f"{len(unknown_range)} nodes stay in float32, as NaN or infinity passed through them in every sample: "
            f"{_some(unknown_range)}."
        )
    return found


class RefusedFloat16(Exception):
    """The converted model does not load, or fails on a call that the float32 model answers."""


def _overflow(before: ModelFile, after: ModelFile, context: PassContext) -> str | None:
    """Name of an output that is finite in `before` and not in `after`, on the first calls.

    Raises:
        ModelFails: `before` fails.
        RefusedFloat16: `after` does.

    """
    first = open_session(before.path, context.threads)
    names = [str(output.name) for output in first.get_outputs()]
    exact = [(call.feed, run_session(first, call.feed)) for call in islice(context.feeds.calls(1), CHECKED_CALLS)]
    try:
        second = open_session(after.path, context.threads)
        for given, outputs in exact:
            made = run_session(second, as_taken_by(second, given))
            for name, left, right in zip(names, outputs, made, strict=True):
                if _finite(left) and not _finite(right):
                    return name
    except ModelFails as error:
        raise RefusedFloat16(error.detail) from error
    return None


def _finite(array: object) -> bool:
    return not isinstance(array, np.ndarray) or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _inside_others(float_model: ModelFile) -> list[str]:
    """Nodes of branches and loop bodies."""
    graph = float_model.structure().graph
    outside = {node.name for node in graph.node}
    return [node.name for node in nodes_of(graph) if node.name not in outside]


def _has_float32(model: ModelFile) -> bool:
    structure = model.structure()
    values = [*structure.graph.input, *structure.graph.output]
    return (
        any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in values)
        or any(tensor.data_type == TensorProto.FLOAT for tensor in walk.tensors(structure))
        or any(_makes_float32(attribute) for node in walk.nodes(structure) for attribute in node.attribute)
    )


def _makes_float32(attribute: AttributeProto) -> bool:
    """Of a Cast, or of a Constant that holds numbers without a tensor around them."""
    to_float32 = attribute.name == "to" and attribute.i == TensorProto.FLOAT
    return to_float32 or attribute.name in ("value_float", "value_floats")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
