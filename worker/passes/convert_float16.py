"""IEEE 754 half precision for weights and arithmetic, float32 where a value would not fit.

P. Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740, section 3, on what half precision cannot
hold. Tool: `onnxruntime.transformers.float16`.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from app.recipes.graph import ConvertFloat16
from worker.engine.calibration import Settings, calibrate
from worker.engine.faults import UserFault, is_out_of_memory
from worker.engine.feeds import Feeds
from worker.engine.graph import attribute_of, inputs_of, name_nodes, nodes_of, restore_face
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import prepare
from worker.engine.quiet import quiet
from worker.engine.sessions import Feed, ModelFails, open_session, run_session

LARGEST = 65504.0
# A range seen on some samples is not the largest there is.
HEADROOM = 4.0
CHECKED_CALLS = 8
SEARCHED_SAMPLES = 32


@dataclass(frozen=True)
class Attempt:
    """One conversion, and the output that left float16's range in it, if any."""

    model: ModelFile
    overflow: str | None


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
    preparation = prepare(model, next(context.feeds.calls(1)).feed, context.scratch, context.threads)
    prepared, notes = preparation.model, preparation.notes
    context.progress(0.4)
    context.phase("converting")
    kept = list(config.keep_float32)
    try:
        wide = _wide_nodes(prepared, context)
        kept.extend(wide)
        if wide:
            notes.append(f"{len(wide)} nodes stay in float32, their values leave float16's range: {_some(wide)}.")
        attempt = _attempt(prepared, config, kept, context)
    except Exception as error:  # the converter raises anything, and makes files that do not load
        _raise_unless_the_tools(error, model, context)
        return PassResult(model, False, [*notes, f"The model could not be converted: {str(error)[:300]}"])
    if attempt.overflow:
        notes.append(f"Output {attempt.overflow!r} is NaN or infinite in float16 where float32 is finite.")
    unknown = sorted(set(config.keep_float32) - {node.name for node in nodes_of(prepared.structure().graph)})
    if unknown:
        notes.append(f"`keep_float32` names nodes that the prepared graph does not have: {_some(unknown)}.")
    context.progress(1.0)
    return PassResult(attempt.model, True, notes, {"kept_float32": kept})


def _raise_unless_the_tools(error: Exception, model: ModelFile, context: PassContext) -> None:
    """Raise what the conversion is not to blame for: a lack of memory, a user's fault, a model that fails without it.

    Raises:
        UserFault: the fault itself, or what `model` meets on the calls that the conversion made.

    """
    if is_out_of_memory(error) or (isinstance(error, UserFault) and not isinstance(error, ModelFails)):
        raise error
    if isinstance(error, ModelFails):
        session = open_session(model.path, context.threads)
        for call in islice(context.feeds.calls(1), SEARCHED_SAMPLES):
            run_session(session, call.feed)


def _attempt(prepared: ModelFile, config: ConvertFloat16, kept: list[str], context: PassContext) -> Attempt:
    with quiet(context.scratch):
        made = convert_float_to_float16(
            prepared.load(),
            keep_io_types=config.keep_io_types,
            disable_shape_infer=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=kept,
        )
    _keep_wide_values_wide(made, prepared.structure())
    restore_face(made, prepared.structure(), keep_io=config.keep_io_types)
    name_nodes(made)
    file = save_model(made, context.scratch / "result")
    return Attempt(file, _overflow(prepared, file, context.feeds, context.threads))


def _keep_wide_values_wide(made: onnx.ModelProto, prepared: onnx.ModelProto) -> None:
    """Between two nodes left in float32 the tool casts to float16 and back, which is where values overflow."""
    known = {node.name for node in nodes_of(prepared.graph)}
    casts = [node for node in made.graph.node if node.op_type == "Cast" and node.name not in known]
    narrowed = {node.output[0]: node.input[0] for node in casts if attribute_of(node, "to", 0) == TensorProto.FLOAT16}
    for node in casts:
        if attribute_of(node, "to", 0) == TensorProto.FLOAT and node.input[0] in narrowed:
            node.input[0] = narrowed[node.input[0]]
    read = {name for node in nodes_of(made.graph) for name in node.input}
    read |= {value.name for value in made.graph.output}
    for node in casts:
        if node.output[0] not in read:
            made.graph.node.remove(node)


def _overflow(before: ModelFile, after: ModelFile, feeds: Feeds, threads: int) -> str | None:
    """Name of an output that is finite in `before` and not in `after`, on the first calls."""
    first, second = open_session(before.path, threads), open_session(after.path, threads)
    dtypes = {face.name: face.dtype for face in inputs_of(after.structure())}
    for call in islice(feeds.calls(1), CHECKED_CALLS):
        feed: Feed = {name: array.astype(dtypes[name]) for name, array in call.feed.items()}
        outputs = zip(run_session(first, call.feed), run_session(second, feed), strict=True)
        for output, (left, right) in zip(first.get_outputs(), outputs, strict=True):
            if _finite(left) and not _finite(right):
                return str(output.name)
    return None


def _finite(array: object) -> bool:
    return not isinstance(array, np.ndarray) or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _wide_nodes(prepared: ModelFile, context: PassContext) -> list[str]:
    """Nodes that read or write a value, or read a constant, near or beyond what float16 holds.

    Running the converted file would not show them here: on a CPU the runtime computes float16 in float32.
    """
    calibration = calibrate(prepared, Settings(samples=SEARCHED_SAMPLES), context, lambda _share: None)
    wide = {
        name
        for name, range_ in calibration.ranges.items()
        if max(abs(range_.low), abs(range_.high)) * HEADROOM > LARGEST
    }
    model = prepared.load()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size and float(np.abs(values).max()) > LARGEST:
                wide.add(tensor.name)
    return [node.name for node in model.graph.node if wide & {*node.input, *node.output}]


def _has_float32(model: ModelFile) -> bool:
    structure = model.structure()
    values = [*structure.graph.input, *structure.graph.output]
    return any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in values) or any(
        tensor.data_type == TensorProto.FLOAT for tensor in structure.graph.initializer
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
