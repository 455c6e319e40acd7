"""A static int8 form trained on: weights and scales that are learned where its Q and DQ stand."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from app.recipes.training import TeachingOptions
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import Numbers, builder
from worker.engine.int8.grids import Grid, GriddedWeight
from worker.engine.int8.packing import BYTE, bits_of, pack_weights
from worker.engine.int8.placement import Placement
from worker.engine.int8.trainee import trainee
from worker.engine.int8.units import Role, units_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.trainable.write_back import write_back
from worker.engine.training.account import for_manifest, in_words, replayed
from worker.engine.training.hooks import Hooks
from worker.engine.training.int8_simulation import Int8Simulation
from worker.engine.training.lesson import Lesson, plan_lesson
from worker.engine.training.masks import Masks
from worker.engine.training.randomness import repeatable
from worker.engine.training.scale_hooks import ScaleHooks, rests_from
from worker.engine.training.student import prepare_student, training_data
from worker.engine.training.trainer import Tensors, Trained


@dataclass(frozen=True)
class Start:
    """The float model made ready, what of it runs in int8, with which numbers, and on which grids weights lie."""

    prepared: ModelFile
    placement: Placement
    numbers: Numbers
    weights: Mapping[str, GriddedWeight]

    @property
    def in_fewer_bits(self) -> dict[str, Grid]:
        """By unit the grids of weights that take less than a byte each."""
        return {name: one.grid for name, one in self.weights.items() if bits_of(one.grid) < BYTE}

    def without_zero(self, made: ModelFile) -> set[str]:
        """Names of the weights in the float model `made` of this one whose grids have no 0."""
        units = Placement.of(units_of(read_graph(made)), self.placement.quantized).in_int8
        weights = {unit.name: unit.node.inputs[1] for unit in units if unit.name in self.weights}
        return {value.name or "" for name, value in weights.items() if value and not self.weights[name].grid.has_zero}


@dataclass(frozen=True)
class LearnedForm:
    """`model` is None where no epoch was better than post-training quantization; with fewer than 8 bits it never is."""

    model: ModelFile | None
    notes: list[str]
    manifest: dict[str, Any]


def learn_form(start: Start, teacher: ModelFile, options: TeachingOptions, context: PassContext) -> LearnedForm:
    """Train as `options` say, and write the weights and scales that were learned as an int8 file.

    Raises:
        UserFault: as `prepare_student` and `plan_lesson`.
        BudgetExhausted: no time is left for an epoch.

    """
    first = trainee(start.prepared, start.placement, start.numbers.biases, start.weights, context.scratch / "trainee")
    with repeatable(context.threads):
        student = prepare_student(first, training_data(context), options, context)
        simulation = Int8Simulation.of(start.placement, start.numbers.maps, start.weights)
        simulation.to(student.module.device)
        student.module.arithmetic = simulation
        scales = simulation.scales()
        ratios = {name: scale.ratio for name, scale in scales.items()}
        lesson = plan_lesson(replace(student, tensors=student.tensors | ratios), options, context, teacher)
        lesson = _freed(lesson, start.without_zero(student.file))
        trained = lesson.run(context, ScaleHooks(scales, lesson.masks or Hooks()))
    manifest = for_manifest(lesson, trained)
    manifest["replay"] = replayed(lesson, trained)
    notes = [
        *in_words(lesson, trained),
        _scales_in_words(len(scales), lesson, trained),
    ]
    if not trained.improved and not start.in_fewer_bits:
        return LearnedForm(None, notes, manifest)
    with torch.no_grad():
        for name, ratio in ratios.items():
            ratio.copy_(trained.state[name])
    weights = {name: tensor for name, tensor in trained.state.items() if name not in ratios}
    return LearnedForm(_written(start, student.file, simulation, weights, context.scratch), notes, manifest)


def _freed(lesson: Lesson, names: Collection[str]) -> Lesson:
    """Without masks of the weights of these `names`: held at 0 they would all be the same sign for good."""
    masks = {} if lesson.masks is None else lesson.masks.kept
    lost = [kept for name, kept in masks.items() if name in names]
    if not lost:
        return lesson
    left = {name: kept for name, kept in masks.items() if name not in names}
    zeros = sum(int((~kept).sum()) for kept in lost)
    words = f"{zeros:,} weights in {len(lost)} tensors were zero and are so no more: binary weights have no zero."
    return replace(lesson, masks=Masks(left) if left else None, notes=[*lesson.notes, words])


def _scales_in_words(count: int, lesson: Lesson, trained: Trained) -> str:
    steps, standing = lesson.batches.steps, trained.standing
    done = standing.epoch * steps + standing.step
    rested = done - rests_from(steps * lesson.options.epochs)
    if rested <= 0:
        return f"{count} scales were learned; training ended before the steps in which they rest."
    return f"{count} scales were learned, and rested for the last {rested:,} of {done:,} steps."


def _written(start: Start, first: ModelFile, simulation: Int8Simulation, weights: Tensors, scratch: Path) -> ModelFile:
    float_file = write_back(first, weights, scratch / "learned")
    units = Placement.of(units_of(read_graph(float_file)), start.placement.quantized).in_int8
    values = {unit.name: unit.weight_values for unit in units if unit.role is Role.WEIGHTED}
    numbers = Numbers(start.numbers.maps | simulation.maps(), simulation.codes(values))
    made = builder(float_file, lambda _placement: numbers)(start.placement, scratch / "learned-int8")
    few = start.in_fewer_bits
    return pack_weights(made, numbers.codes, few, scratch / "packed") if few else made
