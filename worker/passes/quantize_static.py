"""INT8 weights and activations with ranges from calibration data.

Unsigned 8-bit activations, asymmetric; signed weights, symmetric, per output channel; 32-bit biases: B. Jacob et al.,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018,
arXiv:1712.05877. Which nodes run in int8 is decided by timing them here; weights are rounded, and biases corrected, for
what the nodes are fed (`worker.engine.int8`).

In 16 bits nothing of this is of use on a CPU, which has no such kernel: weights are stored so, and arithmetic is float.
"""

from dataclasses import replace

from app.recipes.quantization import QuantizeStatic, QuantizeWeights
from worker.engine.int8.delivery import deliver
from worker.engine.int8.eligible import reasons_in_words
from worker.engine.int8.layers import layers_of
from worker.engine.int8.static_form import StaticForm, static_form
from worker.engine.int8.unquantized import without_int8
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult, share_of
from worker.engine.weight_only.storing import store_weights

FORMED = 0.75
IN_8_BITS = "Weights in 8 bits, activations in unsigned 8 bits."
UNSATURATED = "Weights in 8 bits, no two of which saturate a kernel without VNNI; activations in unsigned 8 bits."
SIXTEEN = 16
FOR_SIZE = "No kernel of a CPU multiplies in 16-bit integers: 16 bits are for size, and activations stay in float."


def apply(model: ModelFile, config: QuantizeStatic, context: PassContext) -> PassResult:
    """Notes name the nodes left in float and why; the manifest holds every choice, for another run to repeat."""
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    if config.bits == SIXTEEN:
        stored = store_weights(model, _stored_in_16_bits(config), context)
        return replace(stored, notes=[FOR_SIZE, *stored.notes])
    form = static_form(model, config, share_of(context, 0.0, FORMED))
    notes = [*form.notes, *reasons_in_words(form.placement)]
    if form.model is None:
        return _unquantized(form, notes, model, config, context)
    delivery = deliver(form, form.model, model, share_of(context, FORMED, 1.0))
    notes += [*delivery.notes, UNSATURATED if form.rounding.unsaturated else IN_8_BITS]
    manifest = {**form.manifest, "replay": form.settled, "operator_counts": delivery.operator_counts}
    return PassResult(delivery.model, True, notes, manifest, delivery.layers)


def _stored_in_16_bits(config: QuantizeStatic) -> QuantizeWeights:
    return QuantizeWeights(**{"pass": "quantize_weights", "bits": SIXTEEN, "exclude": config.exclude})


def _unquantized(
    form: StaticForm, notes: list[str], model: ModelFile, config: QuantizeStatic, context: PassContext
) -> PassResult:
    """What is delivered where nothing is left in int8."""
    left = without_int8(form.preparation, model, config.without_int8, context)
    manifest = {**form.manifest, "replay": form.settled | {"without_int8": left.settled}}
    layers = layers_of(form.placement, left.executed, form.choice.costs.units, {}, {})
    return PassResult(left.model, left.modified, [*notes, left.note], manifest, layers)
