"""One training, put together from a pass's arguments and its context, and carried out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.recipes.training import TeachingOptions, TrainingOptions
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, TrainingData
from worker.engine.trainable.importing import plain_graph
from worker.engine.training.batches import Batches, Split, split
from worker.engine.training.hooks import Hooks
from worker.engine.training.judging import Judge
from worker.engine.training.masks import Masks, weights_as_uploaded, zeros_of
from worker.engine.training.objective import Hard, Lessons, Weights
from worker.engine.training.optimizers import is_matrix
from worker.engine.training.readings import find_readings, squashed_by
from worker.engine.training.scoring import score_of
from worker.engine.training.student import Student, training_data
from worker.engine.training.targets import LabelsMismatch, Target, check_kinds, choose_targets
from worker.engine.training.teaching import teach
from worker.engine.training.trainer import Subject, Trained, Trainer


class NothingToLearn(UserFault):
    code, title = "nothing_to_learn", "Nothing of what the recipe weighs can be learned"


@dataclass(frozen=True)
class Lesson:
    """Everything that a training is made of."""

    student: Student
    options: TrainingOptions
    objective: Lessons
    batches: Batches
    judge: Judge
    split: Split
    masks: Masks | None
    notes: list[str]
    teacher: ModelFile | None = None
    """Whose answers are learned."""

    def run(self, context: PassContext, hooks: Hooks | None = None) -> Trained:
        """Within `randomness.repeatable`. `hooks` take the place of the masks. Raises as `Trainer.run`."""
        projections = {str(number): one.projection for number, one in enumerate(self.objective.features)}
        helpers = {f"projection {name}": one for name, one in projections.items() if one is not None}
        subject = Subject(self.student.module, self.student.tensors, helpers, undecayed=self.student.biases)
        context.phase("training")
        hooks = hooks or self.masks or Hooks()
        trainer = Trainer(
            subject,
            self.objective,
            self.batches,
            self.judge,
            self.options,
            context,
            self.fingerprint(context, hooks),
            hooks,
        )
        return trainer.run()

    def fingerprint(self, context: PassContext, hooks: Hooks) -> str:
        """Of what a checkpoint must have been made by, to be gone on from."""
        targets = [one.target for one in self.objective.hard]
        facts: dict[str, Any] = {
            "options": self.options.filled_in(),
            "seed": context.seed,
            "threads": context.threads,
            "model": self.student.file.sha256(),
            "samples": self.student.feeds.sample_count,
            "held_out": self.split.sha256(),
            "labels": {one.output: [one.array, one.axis, one.binary, one.sha256()] for one in targets},
            "teacher": None if self.teacher is None else self.teacher.sha256(),
            "rule": hooks.rule(),
        }
        tensors = self.student.tensors
        undecayed = sorted(name for name in self.student.biases & tensors.keys() if is_matrix(tensors[name]))
        if undecayed:  # the optimizer's state is numbered by what decays
            facts["undecayed"] = undecayed
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan_lesson(
    student: Student, options: TrainingOptions, context: PassContext, teacher: ModelFile | None = None
) -> Lesson:
    """Learned from labels alone; with a teacher, for which `options` are `TeachingOptions`, from both as they say.

    Raises:
        LabelsMismatch: labels do not fit, or there are none where they are needed.
        TooFewSamples: there is nothing to be held out.
        NothingToLearn: no output, feature or label is left to learn from.
        UserFault: as `teach`.

    """
    data, outputs, graph = training_data(context), student.look(), plain_graph(student.file)
    check_kinds(outputs, options)
    squashed = {name: by for name in outputs if (by := squashed_by(graph, name)) is not None}
    gamma = options.gamma if isinstance(options, TeachingOptions) else 1.0
    targets = [] if gamma == 0 else choose_targets(data.labels, outputs, options, squashed)
    if gamma and not targets:
        raise _no_labels(data, outputs)
    parts = split(student.samples, options.held_out, context.seed)
    by_output: dict[str, Target] = {target.output: target for target in targets}
    readings = find_readings(graph, outputs, by_output, options, bool(student.feeds.whole))
    hard = [Hard(readings[target.output], target) for target in targets]
    objective, taught = Lessons(Weights(gamma=1.0), hard=hard), None
    if teacher is not None and isinstance(options, TeachingOptions):
        taught = teach(teacher, student, readings, parts.training, options, data, context)
        weight = gamma if gamma is not None else 1.0 if hard else 0.0
        weights = Weights(options.alpha, options.beta, weight, options.temperature)
        objective = Lessons(weights, taught.soft, hard, taught.features)
        if not objective.wanted:
            raise NothingToLearn(
                f"With alpha {options.alpha:g} and beta {options.beta:g} {_lacking(options)}.",
                "Raise `alpha`, add labels, or name tensors in `features`.",
            )
    asked, device = None if taught is None else taught.teacher, student.module.device
    batches, held_out = (
        Batches(student.feeds, samples, options.batch_size, context.seed, device, targets, asked)
        for samples in (parts.training, parts.held_out)
    )
    zeros = {}
    if options.keep_zeros:
        matrices = {name: one for name, one in student.tensors.items() if name not in student.biases}
        zeros = zeros_of(matrices, weights_as_uploaded(matrices, student.file, context))
    return Lesson(
        student=student,
        options=options,
        objective=objective,
        batches=batches,
        judge=Judge(student.module, objective, held_out, score_of(objective)),
        split=parts,
        masks=Masks(zeros) if zeros else None,
        notes=[] if taught is None else taught.notes,
        teacher=None if taught is None else teacher,
    )


def _no_labels(data: TrainingData, outputs: Mapping[str, np.ndarray]) -> LabelsMismatch:
    arrays = ", ".join(f"{name} {one.dtype} {list(one.shape)}" for name, one in sorted(data.labels.items()))
    rows = ", ".join(f"{name} {one.dtype} {['N', *one.shape[1:]]}" for name, one in outputs.items())
    return LabelsMismatch(
        "No array of the training data fits an output of the model as its labels; beside the model's inputs there "
        f"are {arrays or 'none'}, and its outputs are {rows or 'none, a row a sample'}.",
        "Give the number of the class of each sample, or as many numbers as the output holds; or name output and array "
        "in `labels`.",
    )


def _lacking(options: TeachingOptions) -> str:
    features = "teacher and student have no inner tensors of one name or place, " if options.beta else ""
    labels = "labels have no weight" if options.gamma == 0 else "no labels fit an output"
    return f"{features}{'and ' if features else ''}{labels}: nothing is left to learn"
