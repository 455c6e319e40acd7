"""INT8 weights; activations are quantized at run time, each by its own range in that call. Needs no data.

Signed weights, symmetric, per output channel; unsigned activations: ONNX's DynamicQuantizeLinear. For products with a
weight matrix, and LSTM, where timing them here says that they are faster so (`worker.engine.dynamic`). Convolutions
never: their dynamic kernel is up to four times slower than float.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from app.recipes.quantization import QuantizeDynamic
from worker.engine.dynamic.placement import everything_dynamic, faster_dynamic
from worker.engine.dynamic.writing import dynamic_builder
from worker.engine.graph_file import read_graph
from worker.engine.int8.choosing import MEASURING_SECONDS, NO_TIME, Choice, choose_placement, placement_of_recipe
from worker.engine.int8.eligible import reasons_in_words
from worker.engine.int8.fidelity import layer_sqnr_db
from worker.engine.int8.layers import layers_of
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.sensitivity import account
from worker.engine.int8.unquantized import without_int8
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import (
    Preparation,
    operator_counts,
    prepared,
    save_restored,
    unknown_nodes,
)
from worker.engine.processor import needs_reduced_range
from worker.engine.tensor_fidelity import LAYER_SAMPLES
from worker.engine.timing import profiled

PREPARED, PLACED, BUILT = 0.2, 0.7, 0.9
PROFILING_SECONDS = 1.0


@dataclass(frozen=True)
class Work:
    """One run of the pass: the float model made ready, and everything in it that has a dynamic form."""

    preparation: Preparation
    everything: Placement
    rounding: Rounding

    @property
    def prepared(self) -> ModelFile:
        return self.preparation.model


def apply(model: ModelFile, config: QuantizeDynamic, context: PassContext) -> PassResult:
    """Notes say how many nodes of each kind were quantized, and what was left in float and why."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    work = _prepared(model, config, context)
    context.progress(PREPARED)
    context.check_time("quantizing")
    choice = _placed(work, config, context)
    context.progress(PLACED)
    placement, before = choice.placement, operator_counts(work.prepared.structure())
    notes = [
        *work.preparation.notes,
        *unknown_nodes(config.exclude, work.prepared.structure()),
        *choice.in_words(),
        *reasons_in_words(placement),
    ]
    manifest = {"placement": choice.manifest(), "replay": _pinned(work, placement, config)}
    if not placement.quantized:
        left = without_int8(work.preparation, model, config.without_int8, context)
        layers = layers_of(placement, left.executed, choice.costs.units, {}, {})
        manifest["replay"] = {**manifest["replay"], "without_int8": left.settled}
        return PassResult(left.model, left.modified, [*notes, left.note], manifest, layers)
    context.phase("quantizing")
    build = dynamic_builder(work.prepared, work.rounding)
    made = build(placement, context.scratch / "built")
    result = save_restored(made.load(), model, context.scratch / "result")
    context.progress(BUILT)
    executed = profiled(result, context, PROFILING_SECONDS)
    sqnr = layer_sqnr_db(work.prepared, made, placement, context, LAYER_SAMPLES)
    sensitivities, cut_short = account({}, work.prepared, placement, build, context)
    layers = layers_of(placement, executed, choice.costs.units, sqnr, sensitivities)
    counts = Counter(unit.node.op_type for unit in placement.in_int8)
    notes.append("Quantized: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + ".")
    notes.extend(cut_short)
    manifest["operator_counts"] = {"before": before, "after": operator_counts(result.structure())}
    context.progress(1.0)
    return PassResult(result, True, notes, manifest, layers)


def _prepared(model: ModelFile, config: QuantizeDynamic, context: PassContext) -> Work:
    preparation = prepared(model, context)
    everything = everything_dynamic(read_graph(preparation.model), config.operators, config.exclude)
    saturates = needs_reduced_range(context.instruction_set)
    reduce_range = saturates if config.reduce_range is None else config.reduce_range
    return Work(preparation, everything, Rounding(unsaturated=reduce_range, per_channel=config.per_channel))


def _placed(work: Work, config: QuantizeDynamic, context: PassContext) -> Choice:
    settled = placement_of_recipe(work.everything, config.placement, config.in_float)
    if settled is not None:
        return settled
    if context.lacks(MEASURING_SECONDS):
        work.preparation.notes.append(NO_TIME)
        return Choice(work.everything)
    context.phase("placing")
    build = dynamic_builder(work.prepared, work.rounding)
    return choose_placement(work.prepared, work.everything, build, context, faster_dynamic)


def _pinned(work: Work, placement: Placement, config: QuantizeDynamic) -> dict[str, Any]:
    """The arguments that repeat this run's choices without measuring anything."""
    pinned = {
        "placement": "given",
        "in_float": sorted(work.everything.quantized - placement.quantized),
        "reduce_range": work.rounding.unsaturated,
    }
    return config.model_dump(mode="json", by_alias=True) | pinned
