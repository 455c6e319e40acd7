"""INT8 weights and activations, trained: what rounding takes, the weights learn again around it.

Learned Step Size Quantization (S. Esser et al., https://arxiv.org/abs/1902.08153), from where post-training
quantization ends and at exactly its places: the same graph made ready, the same nodes in int8, the same scales to begin
with, so that ONNX Runtime fuses what is delivered as it does the file of `quantize_static`. The float original teaches,
and labels where there are any. Epoch 0 is the post-training form: no worse one is delivered, as far as held-out samples
tell. Training may lead away from what the model answered before, so the floor of fidelity is measured again on the file
that is delivered.
"""

import math
from dataclasses import asdict

import numpy as np

from app.recipes.aware import QuantizeAwareTraining
from worker.engine.fidelity import Floor, measure_fidelity
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import Numbers
from worker.engine.int8.delivery import deliver
from worker.engine.int8.eligible import reasons_in_words
from worker.engine.int8.ends import ends_of
from worker.engine.int8.grids import GriddedWeight, gridded
from worker.engine.int8.layers import layers_of
from worker.engine.int8.placement import Placement
from worker.engine.int8.rescue import TRIAL_SAMPLES
from worker.engine.int8.static_form import StaticForm, static_form
from worker.engine.int8.units import Role, Unit, units_of
from worker.engine.int8.unquantized import without_int8
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import BudgetExhausted, PassContext, PassResult, share_of

FORMED, TRAINED = 0.3, 0.9


def apply(model: ModelFile, config: QuantizeAwareTraining, context: PassContext) -> PassResult:
    """Notes name the nodes left in float and why, and how training went; the manifest holds every choice."""
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    form = static_form(model, config, share_of(context, 0.0, FORMED))
    notes = [*form.notes, *reasons_in_words(form.placement)]
    if form.model is None or form.numbers is None:
        left = without_int8(form.preparation, model, config.without_int8, context)
        manifest = {**form.manifest, "replay": form.settled | {"without_int8": left.settled}}
        layers = layers_of(form.placement, left.executed, form.choice.costs.units, {}, {})
        return PassResult(left.model, left.modified, [*notes, left.note], manifest, layers)
    manifest = {**form.manifest, "replay": form.settled}
    made = _trained(form, form.model, model, config, context, notes, manifest)
    delivery = deliver(form, made, model, share_of(context, TRAINED, 1.0))
    notes = [*notes, *delivery.notes, *_kept_of(model, delivery.model, config, context, manifest)]
    return PassResult(
        delivery.model, True, notes, {**manifest, "operator_counts": delivery.operator_counts}, delivery.layers
    )


def _trained(
    form: StaticForm,
    post_training: ModelFile,
    model: ModelFile,
    config: QuantizeAwareTraining,
    context: PassContext,
    notes: list[str],
    manifest: dict[str, object],
) -> ModelFile:
    """The int8 file as training makes it, or as it was where that is no better or there is no time."""
    # Here and not above: a model of which nothing runs in int8 needs no torch.
    from worker.engine.training.quantized_lesson import Start, learn_form  # noqa: PLC0415

    numbers = form.numbers
    if numbers is None:
        return post_training
    units = Placement.of(units_of(read_graph(form.prepared)), form.placement.quantized).in_int8
    weights = _gridded([unit for unit in units if unit.role is Role.WEIGHTED], numbers, form, config, notes)
    start = Start(form.prepared, form.placement, numbers, weights)
    context.checkpoints.settle(form.settled)
    try:
        learned = learn_form(start, context.original or model, config, share_of(context, FORMED, TRAINED))
    except BudgetExhausted:
        if start.in_fewer_bits:
            raise
        notes.append("No time was left to train: the model was quantized as `quantize_static` does.")
        return post_training
    notes.extend(learned.notes)
    manifest["training"] = learned.manifest
    manifest["replay"] = form.settled | learned.manifest.pop("replay")
    return learned.model or post_training


def _gridded(
    weighted: list[Unit], numbers: Numbers, form: StaticForm, config: QuantizeAwareTraining, notes: list[str]
) -> dict[str, GriddedWeight]:
    """Weights by unit on the grids that were asked for; those at the ends, which lose most, in 8 bits, whoever else
    reads them.
    """
    ends = ends_of(read_graph(form.prepared).graph)
    at_ends = {unit.weight for unit in weighted if unit.name in ends}
    few = {unit.name for unit in weighted if unit.weight not in at_ends and config.weight_bits != 8}
    if config.weight_bits != 8:
        tied = sum(unit.weight in at_ends and unit.name not in ends for unit in weighted)
        notes.extend(_few_bits_in_words(weighted, few, tied, form, config))
    return gridded(weighted, few, config.weight_bits, numbers.codes, form.rounding)


def _few_bits_in_words(
    weighted: list[Unit], few: set[str], tied: int, form: StaticForm, config: QuantizeAwareTraining
) -> list[str]:
    """What lies in few bits, what in 8, `tied` of it as the ends read it too, and what in none, as it runs in float."""
    kind = f"{config.weight_bits} bits" if isinstance(config.weight_bits, int) else config.weight_bits
    ends = len(weighted) - len(few) - tied
    nothing = (
        f"No weights are {kind}: of {len(weighted)} nodes in int8 none is left between the first and last ones, whose "
        "weights stay in 8 bits."
    )
    packed = (
        f"Weights of {len(few)} of {len(weighted)} nodes in int8 are {kind}, packed in the file, and those of the "
        f"{ends} first and last ones 8 bits; ONNX Runtime takes them apart when it loads the "
        "file and runs them in its 8-bit kernels."
    )
    notes = [packed if few else nothing]
    if tied:
        notes.append(f"In 8 bits because they share the weight of a first or last node: {tied}.")
    units, quantized = form.placement.units, form.placement.quantized
    in_float = [unit for unit in units if unit.role is Role.WEIGHTED and unit.name not in quantized]
    if in_float:
        count = sum(math.prod(unit.weight_shape) for unit in in_float)
        notes.append(f"Nodes left in float although they have an int8 kernel: {len(in_float)}, with {count:,} weights.")
    return notes


def _kept_of(
    model: ModelFile,
    delivered: ModelFile,
    config: QuantizeAwareTraining,
    context: PassContext,
    manifest: dict[str, object],
) -> list[str]:
    """What the delivered file keeps of the model, on calibration data; in words where it is too little."""
    fidelity = measure_fidelity(model, delivered, context, np.arange(TRIAL_SAMPLES))
    manifest["delivered_fidelity"] = asdict(fidelity)
    floor = Floor.of(config.fidelity_floor_db, context.max_drop)
    if not config.keep_fidelity or fidelity.holds(floor):
        return []
    return [
        f"The delivered file keeps less of the model than was asked for: {fidelity.in_words()} on calibration data, "
        f"not {floor.in_words()}. More `epochs`, more bits or `exclude` help; what training made of the "
        "labels shows in the evaluation alone."
    ]
