"""INT8 weights and activations with ranges from calibration data.

Unsigned 8-bit activations, asymmetric; signed weights, symmetric, per output channel; 32-bit biases: B. Jacob et al.,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018,
arXiv:1712.05877. Which nodes run in int8 is decided by timing them here; weights are rounded, and biases corrected, for
what the nodes are fed (`worker.engine.int8`).
"""

from dataclasses import dataclass
from typing import Any

from app.recipes.quantization import QuantizeStatic
from worker.engine.calibration import Calibration, Settings, calibrate
from worker.engine.graph import name_nodes, restore_face
from worker.engine.int8.building import (
    Accuracy,
    accurate_numbers,
    builder,
    maps_of,
    plain_numbers,
    tensors_to_calibrate,
    without_unknown_ranges,
)
from worker.engine.int8.choosing import Choice, choose_placement
from worker.engine.int8.eligible import NOT_FINITE, eligible, reasons_in_words
from worker.engine.int8.placement import Placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.int8.verification import not_fused
from worker.engine.kinds import is_quantized, is_transformer
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import operator_counts, prepare
from worker.engine.processor import needs_reduced_range
from worker.engine.profiling import profile

PREPARED, CALIBRATED, PLACED, ROUNDED = 0.1, 0.4, 0.6, 0.9
VERIFYING_SECONDS = 1.0
# What units are fed is read from this many samples at most: their rows are drawn at random anyway.
MOST_INPUT_SAMPLES = 64


@dataclass(frozen=True)
class Work:
    """One run of the pass: the float model made ready, and what was learnt of it."""

    prepared: ModelFile
    calibration: Calibration
    everything: Placement
    rounding: Rounding
    notes: list[str]


def apply(model: ModelFile, config: QuantizeStatic, context: PassContext) -> PassResult:
    """Notes name the nodes left in float and why."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model is quantized already; nothing was changed."])
    work = _calibrated(model, config, context)
    choice = _placed(work, config, context)
    work.notes.extend(reasons_in_words(choice.placement))
    manifest = _manifest(work, choice)
    if not choice.placement.quantized:
        return PassResult(model, False, [*work.notes, "Nothing was quantized; the model is unchanged."], manifest)
    context.progress(PLACED)
    context.check_time("rounding")
    context.phase("rounding")
    made = _built(work, choice.placement, config, context)
    finished = made.load()
    restore_face(finished, model.structure())
    name_nodes(finished)
    result = save_model(finished, context.scratch / "result")
    context.progress(ROUNDED)
    work.notes.extend(_verified(result, choice.placement, context))
    work.notes.append(f"Weights in {work.rounding.bits} bits, activations in unsigned 8 bits.")
    counts = {"before": operator_counts(work.prepared.structure()), "after": operator_counts(result.structure())}
    context.progress(1.0)
    return PassResult(result, True, work.notes, {**manifest, "operator_counts": counts})


def _calibrated(model: ModelFile, config: QuantizeStatic, context: PassContext) -> Work:
    preparation = prepare(model, next(context.feeds.calls(1)).feed, context.scratch, context.threads)
    prepared, notes = preparation.model, list(preparation.notes)
    structure = prepared.structure()
    everything = eligible(units_of(prepared.graph()), is_transformer(structure), config.operators, config.exclude)
    unknown = sorted(set(config.exclude) - {node.name for node in structure.graph.node})
    if unknown:
        notes.append(f"`exclude` names nodes that the prepared graph does not have: {', '.join(unknown[:10])}.")
    context.progress(PREPARED)
    context.check_time("calibrating")
    context.phase("calibrating")
    settings = Settings(config.calibration_method, config.percentile, config.calibration_samples)
    calibration = calibrate(
        prepared,
        settings,
        context,
        lambda share: context.progress(PREPARED + (CALIBRATED - PREPARED) * share),
        tensors_to_calibrate(everything),
    )
    notes.append(
        f"Ranges of {len(calibration.ranges)} tensors from {calibration.sample_count} samples of "
        f"{context.feeds.source} ({config.calibration_method})."
    )
    if calibration.sample_count < min(config.calibration_samples, context.feeds.sample_count):
        notes.append("Calibration stopped early: the job's time ran short.")
    reduce_range = needs_reduced_range() if config.reduce_range is None else config.reduce_range
    rounding = Rounding(
        bits=7 if reduce_range else 8,
        per_channel=config.per_channel,
        clip=config.weight_clipping,
        gptq=config.rounding == "gptq",
    )
    return Work(prepared, calibration, without_unknown_ranges(everything, calibration, NOT_FINITE), rounding, notes)


def _placed(work: Work, config: QuantizeStatic, context: PassContext) -> Choice:
    if config.placement == "kernels" or not work.everything.quantized:
        return Choice(work.everything)
    context.phase("placing")
    maps = maps_of(work.everything, work.calibration)
    build = builder(work.prepared, lambda placement: plain_numbers(placement, maps, work.rounding))
    choice = choose_placement(work.prepared, work.everything, build, context)
    work.notes.extend(choice.in_words())
    return choice


def _built(work: Work, placement: Placement, config: QuantizeStatic, context: PassContext) -> ModelFile:
    samples = min(MOST_INPUT_SAMPLES, work.calibration.sample_count)
    accuracy = Accuracy(work.rounding, config.bias_correction, samples)
    maps = maps_of(work.everything, work.calibration)
    numbers = accurate_numbers(work.prepared, placement, maps, accuracy, context)
    return builder(work.prepared, lambda _placement: numbers)(placement, context.scratch / "built")


def _verified(result: ModelFile, placement: Placement, context: PassContext) -> list[str]:
    """What was planned as int8 and ran in float all the same, in words."""
    feed = next(context.feeds.calls(1)).feed
    missed = not_fused(placement, profile(result, feed, context.threads, context.scratch, VERIFYING_SECONDS))
    if not missed:
        return [f"All {len(placement.in_int8)} nodes planned as int8 run as int8."]
    named = ", ".join(f"{one.name} as {one.operator}" for one in missed[:5])
    return [f"{len(missed)} of {len(placement.in_int8)} nodes planned as int8 run in float here: {named}."]


def _manifest(work: Work, choice: Choice) -> dict[str, Any]:
    return {
        "in_int8": [unit.name for unit in choice.placement.in_int8],
        "in_float": dict(sorted(choice.placement.reasons.items())),
        "weight_bits": work.rounding.bits,
        "calibration_samples": work.calibration.sample_count,
        "calibration_order": "the order of the dataset, one sample a call",
        "placement": choice.manifest(),
    }
