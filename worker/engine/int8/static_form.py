"""From a float model to its static int8 form: what is rewritten, what runs in int8, and with which numbers.

The graph is made ready, ranges are calibrated, the placement is measured, the method of ranges chosen, weights are
rounded and biases corrected for what nodes are fed, and what loses too much is given back to float. The form holds all
of it before anything is delivered, so that training can go on from there.
"""

import statistics
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from app.recipes.quantization import StaticOptions
from worker.engine.calibration import Calibration, Method, Settings, calibrate_by, from_numbers, in_numbers
from worker.engine.extent import Extent
from worker.engine.fidelity import Floor
from worker.engine.fusions import fused, normalizations
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.building import (
    Accuracy,
    Numbers,
    accurate_numbers,
    builder,
    maps_of,
    plain_numbers,
    tensors_to_calibrate,
    without_unknown_ranges,
)
from worker.engine.int8.choosing import (
    MEASURING_SECONDS,
    NO_TIME,
    Choice,
    choose_placement,
    measure_candidates,
    placement_of_recipe,
)
from worker.engine.int8.division import cheapest, cheapest_first
from worker.engine.int8.eligible import eligible, with_those_without_form
from worker.engine.int8.equalization import equalize
from worker.engine.int8.placement import Placement
from worker.engine.int8.range_choice import most_faithful
from worker.engine.int8.rescue import SENSITIVE, Rescue, rescue
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.shared_scale import sharing
from worker.engine.int8.smoothing import smooth
from worker.engine.int8.units import units_of
from worker.engine.kinds import is_transformer
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import Preparation, operator_counts, prepared, unknown_nodes
from worker.engine.processor import needs_reduced_range
from worker.engine.turns import is_faster

# Shares of the way to a form.
PREPARED, CALIBRATED, PLACED, ROUNDED = 0.15, 0.4, 0.8, 1.0
GIVEN_UP = "what could be left in int8 was not faster"
# What units are fed is read from this many samples at most: their rows are drawn at random anyway.
MOST_INPUT_SAMPLES = 64
# Of what is left. Calibration, which reads four times as many samples as smoothing, takes a third.
SMOOTHING_SHARE_OF_TIME, ROUNDING_SHARE_OF_TIME = 1 / 10, 1 / 3


@dataclass
class Work:
    """The float model made ready, and what was learnt of it on the way to a form."""

    preparation: Preparation
    everything: Placement
    rounding: Rounding
    notes: list[str]
    manifest: dict[str, Any] = field(default_factory=dict)
    smoothing_samples: int = 0
    input_samples: int | None = None
    """How many samples were read; of inputs none where weights were rounded plainly for want of time."""
    calibrations: dict[Method, Calibration] = field(default_factory=dict)
    """By the methods that are asked for or to be chosen from; the first is the one in use."""

    @property
    def prepared(self) -> ModelFile:
        return self.preparation.model

    @property
    def method(self) -> Method:
        return next(iter(self.calibrations))

    @property
    def calibration(self) -> Calibration:
        return self.calibrations[self.method]


@dataclass(frozen=True)
class StaticForm:
    """`numbers` turn `placement` into arithmetic and `model` is the file that holds it; both are None where nothing is
    left in int8. `settled` holds the arguments that repeat every choice without measuring anything.
    """

    preparation: Preparation
    rounding: Rounding
    placement: Placement
    choice: Choice
    numbers: Numbers | None
    model: ModelFile | None
    sensitivities_db: dict[str, float]
    notes: list[str]
    manifest: dict[str, Any]
    settled: dict[str, Any]

    @property
    def prepared(self) -> ModelFile:
        """The float model that the placement is of."""
        return self.preparation.model

    def build(self, placement: Placement, folder: Path) -> ModelFile:
        """Write some of its units into a folder, with its numbers.

        Raises:
            ValueError: nothing of the form is in int8.

        """
        numbers = self.numbers
        if numbers is None:
            raise ValueError("nothing of the form is in int8")
        return builder(self.prepared, lambda _placement: numbers)(placement, folder)


def static_form(model: ModelFile, config: StaticOptions, context: PassContext) -> StaticForm:
    """Notes say what was measured and chosen; the manifest holds every choice.

    Raises:
        BudgetExhausted: time is over before ranges are calibrated.
        ModelFails: a call fails.

    """
    context.phase("preparing")
    work = _prepared(model, config, context)
    _calibrate(work, config, context)
    choice = _placed(work, config, context)
    numbers, kept = None, None
    if choice.placement.quantized:
        _choose_ranges(work, choice.placement, context)
        numbers, kept = _built(work, choice, config, context)
    placement = kept.placement if kept else choice.placement
    in_int8 = kept if placement.quantized else None
    return StaticForm(
        preparation=work.preparation,
        rounding=work.rounding,
        placement=placement,
        choice=choice,
        numbers=numbers if in_int8 else None,
        model=in_int8.model if in_int8 else None,
        sensitivities_db=kept.sensitivities_db if kept else {},
        notes=work.notes,
        manifest=work.manifest | {"placement": choice.manifest()},
        settled=_settled(work, choice.placement, placement, config),
    )


def _prepared(model: ModelFile, config: StaticOptions, context: PassContext) -> Work:
    preparation = prepared(model, context)
    structure = preparation.model.structure()
    transformer = is_transformer(structure)
    if transformer and "LayerNormalization" not in operator_counts(structure):
        preparation.attempt("fusing LayerNormalization", lambda file, to: fused(file, to, normalizations()))
    if config.equalization:
        preparation.attempt("equalizing the channels between convolutions", _equalized)
    strengths: dict[str, float] = {}
    extent = Extent(seconds=context.seconds_left() * SMOOTHING_SHARE_OF_TIME)
    if transformer and config.smoothing == "auto":
        context.phase("smoothing")
        smoothed, strengths = smooth(preparation.model, context, _smoothing_samples(config), extent)
        if strengths and not preparation.attempt("smoothing activations", lambda _file, _folder: smoothed):
            strengths = {}
    graph = read_graph(preparation.model)
    notes = [
        *preparation.notes,
        *unknown_nodes(config.exclude, preparation.model.structure()),
    ]
    if strengths:
        notes.append(f"Smoothed the activations behind {len(strengths)} LayerNormalizations.")
    everything = eligible(units_of(graph), transformer, config.operators, config.exclude)
    everything = with_those_without_form(everything, graph)
    rounding = _rounding(config, everything, graph, context, transformer)
    samples = extent.samples or _smoothing_samples(config)
    if extent.samples is not None and samples < min(_smoothing_samples(config), context.feeds.sample_count):
        notes.append(f"Smoothing was settled by {samples} samples: the job's time ran short.")
    return Work(preparation, everything, rounding, notes, {"smoothing": strengths}, samples)


def _smoothing_samples(config: StaticOptions) -> int:
    return config.smoothing_samples or min(MOST_INPUT_SAMPLES, config.calibration_samples)


def _rounding(
    config: StaticOptions, everything: Placement, graph: ir.Model, context: PassContext, transformer: bool
) -> Rounding:
    # What a transformer's products are fed differs too much from channel to channel.
    auto = config.per_channel == "auto" and not transformer
    saturates = needs_reduced_range(context.instruction_set)
    return Rounding(
        unsaturated=saturates if config.reduce_range is None else config.reduce_range,
        per_channel=bool(config.per_channel),
        clip=config.weight_clipping,
        gptq=config.rounding == "gptq",
        sharing=sharing(everything.in_int8, graph.graph.inputs, context.timed_feed()) if auto else frozenset(),
    )


def _calibrate(work: Work, config: StaticOptions, context: PassContext) -> None:
    context.progress(PREPARED)
    context.check_time("calibrating")
    context.phase("calibrating")
    methods: tuple[Method, ...] = ("mse", "minmax")
    if config.calibration_method != "auto":
        methods = (config.calibration_method,)
    settings = Settings(methods[0], config.percentile, config.calibration_samples)
    tensors = tensors_to_calibrate(work.everything)

    def progress(share: float) -> None:
        context.progress(PREPARED + (CALIBRATED - PREPARED) * share)

    # Another candidate of a search rests on the same ranges.
    key = "calibration", work.prepared, methods, settings.percentile, settings.samples, tuple(tensors)
    numbers = context.once(
        key, lambda: in_numbers(calibrate_by(methods, work.prepared, settings, context, progress, tensors))
    )
    work.calibrations = from_numbers(numbers, methods)
    calibration = work.calibration
    work.everything = without_unknown_ranges(work.everything, calibration)
    work.notes.append(
        f"Ranges of {len(calibration.ranges)} tensors from {calibration.sample_count} samples of "
        f"{context.feeds.source} ({', '.join(methods)})."
    )
    if calibration.sample_count < min(config.calibration_samples, context.feeds.sample_count):
        work.notes.append("Calibration stopped early: the job's time ran short.")
    work.manifest |= {
        "calibration_samples": calibration.sample_count,
        "calibration_order": "the order of the dataset, a call for each sample, or for a batch where that is fixed",
    }


def _placed(work: Work, config: StaticOptions, context: PassContext) -> Choice:
    settled = placement_of_recipe(work.everything, config.placement, config.in_float)
    if settled is not None:
        return settled
    if context.lacks(MEASURING_SECONDS):
        work.notes.append(NO_TIME)
        return Choice(work.everything)
    context.phase("placing")
    maps = maps_of(work.everything, work.calibration)
    build = builder(work.prepared, lambda placement: plain_numbers(placement, maps, work.rounding))

    def measured() -> dict[str, np.ndarray]:
        choice = choose_placement(
            work.prepared, work.everything, build, context, lambda all_, costs, _: cheapest(all_, costs)
        )
        return choice.in_numbers(work.everything)

    # Which is as fast whatever the numbers are: scales that are shared, and weights that saturate nothing, are not.
    form = work.rounding.per_channel, work.rounding.unsaturated, tuple(sorted(work.rounding.sharing))
    key = "placement", work.prepared, form, tuple(sorted(work.everything.quantized))
    choice = Choice.from_numbers(context.once(key, measured), work.everything)
    work.notes.extend(choice.in_words())
    context.progress(PLACED)
    return choice


def _choose_ranges(work: Work, placement: Placement, context: PassContext) -> None:
    """Choose the method of ranges, where the recipe leaves it open, by what the outputs keep."""

    def build(calibration: Calibration, folder: Path) -> ModelFile:
        maps = maps_of(work.everything, calibration)
        return builder(work.prepared, lambda placed: plain_numbers(placed, maps, work.rounding))(placement, folder)

    context.phase("comparing")
    tried = most_faithful(work.prepared, work.calibrations, build, context)
    work.calibrations = {tried.method: work.calibrations[tried.method]}
    work.notes.extend(tried.in_words())
    work.manifest["ranges_sqnr_db"] = tried.manifest()


def _built(work: Work, choice: Choice, config: StaticOptions, context: PassContext) -> tuple[Numbers, Rescue]:
    """The placement as a file, with nodes given back to float where too much would be lost."""
    placement = choice.placement
    context.phase("rounding")
    numbers = _rounded(work, placement, config, context)
    build = builder(work.prepared, lambda _placement: numbers)
    placement = placement.without(config.given_back, SENSITIVE) if config.given_back else placement
    made = build(placement, context.scratch / "built")
    context.progress(ROUNDED)
    context.phase("checking")
    floor = Floor(-float("inf"))
    if config.keep_fidelity and config.placement != "given":
        floor = Floor.of(config.fidelity_floor_db, context.max_drop)
    order = partial(cheapest_first, placement, choice.costs)
    kept = rescue(work.prepared, placement, made, build, floor, order, context)
    work.notes.extend(kept.in_words())
    if kept.gives_back and choice.ratios:
        kept = _unless_slower(kept, work, context)
    return numbers, kept


def _rounded(work: Work, placement: Placement, config: StaticOptions, context: PassContext) -> Numbers:
    """By what units are fed, read for a share of the time; plainly where there is none."""
    maps = maps_of(work.everything, work.calibration)
    samples = min(MOST_INPUT_SAMPLES, work.calibration.sample_count)
    extent = Extent(config.input_samples, context.seconds_left() * ROUNDING_SHARE_OF_TIME)
    accuracy = Accuracy(work.rounding, config.bias_correction, samples, extent)
    if accuracy.reads_inputs and extent.samples is None and context.lacks(0.0):
        extent.samples = 0
        work.notes.append("No time was left to read what nodes are fed: weights were rounded plainly.")
    if extent.samples == 0:
        work.input_samples = 0
        return plain_numbers(placement, maps, work.rounding)
    numbers = accurate_numbers(work.prepared, placement, maps, accuracy, context)
    work.input_samples = extent.samples
    if extent.samples is not None and extent.samples < samples and config.input_samples is None:
        work.notes.append(
            f"What nodes are fed was read from {extent.samples} of {samples} samples: the job's time ran short."
        )
    return numbers


def _unless_slower(kept: Rescue, work: Work, context: PassContext) -> Rescue:
    """What was chosen for its speed, once nodes are given back: all of them are where that speed is gone."""
    speed = measure_candidates(work.prepared, {"rescued": kept.model}, context)
    work.manifest["rescued_ratios"] = [round(ratio, 4) for ratio in speed["rescued"]]
    if is_faster(speed["rescued"]):
        return kept
    work.notes.append(
        f"With so many nodes in float it measured {statistics.median(speed['rescued']):.2f} times as fast as float, "
        "which is no gain beyond noise: all are."
    )
    return replace(kept, placement=kept.placement.without(kept.placement.quantized, GIVEN_UP))


def _equalized(model: ModelFile, folder: Path) -> ModelFile | None:
    graph = read_graph(model)
    return save_graph(graph, folder / "done") if equalize(graph) else None


def _settled(work: Work, placed: Placement, kept: Placement, config: StaticOptions) -> dict[str, Any]:
    """The arguments that repeat this run's choices without measuring anything.

    Everything is calibrated and rounded as it was before a choice was made: which tensors a model hands
    out decides the last bits of what it computes.
    """
    pinned = {
        "placement": "given",
        "in_float": sorted(work.everything.quantized - placed.quantized),
        "given_back": sorted(placed.quantized - kept.quantized),
        "calibration_method": work.method,
        "reduce_range": work.rounding.unsaturated,
        "calibration_samples": max(1, work.calibration.sample_count),
        "smoothing_samples": work.smoothing_samples,
        "input_samples": work.input_samples,
    }
    return config.model_dump(mode="json", by_alias=True) | pinned
