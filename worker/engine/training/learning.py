"""A file that is trained and gets its weights back: what passes that do nothing else, or do it last, have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.recipes.training import TrainingOptions
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import BudgetExhausted, PassContext
from worker.engine.trainable.write_back import write_back
from worker.engine.training.account import for_manifest, in_words, replayed
from worker.engine.training.lesson import plan_lesson
from worker.engine.training.normalizing import restore_normalization
from worker.engine.training.randomness import repeatable
from worker.engine.training.student import prepare_student, training_data


@dataclass(frozen=True)
class Learned:
    """`model` is None where no epoch was better than the weights of before. `manifest` has `replay`, the arguments that
    end where this run did.
    """

    model: ModelFile | None
    notes: list[str]
    manifest: dict[str, Any]


def learn(
    student_file: ModelFile, teacher: ModelFile | None, options: TrainingOptions, context: PassContext, folder: Path
) -> Learned:
    """Train what is in a file as `options` say, into an empty `folder`; without a teacher by labels alone.

    Raises:
        UserFault: as `prepare_student` and `plan_lesson`.
        BudgetExhausted: no time is left for an epoch.

    """
    with repeatable(context.threads):
        student = prepare_student(student_file, training_data(context), options, context)
        lesson = plan_lesson(student, options, context, teacher)
        restored = restore_normalization(lesson, context)
        trained = restored.lesson.run(context)
    manifest = for_manifest(lesson, trained) | {"normalized": restored.weights}
    manifest["replay"] = replayed(lesson, trained)
    notes = in_words(lesson, trained)
    if not trained.improved:
        return Learned(None, notes, manifest)
    model = write_back(student.file, restored.folded(trained.state), folder)
    return Learned(model, [*notes, *restored.in_words()], manifest)


def learn_behind(
    changed: ModelFile,
    teacher: ModelFile,
    options: TrainingOptions,
    context: PassContext,
    notes: list[str],
    manifest: dict[str, Any],
    not_trained: str,
) -> ModelFile:
    """What a pass has `changed`, as training makes it, or as it is where that is no better or there is no time, which
    `not_trained` says. Adds to the `notes` of the pass, and to its `manifest`, which has `replay`.
    """
    try:
        learned = learn(changed, teacher, options, context, context.scratch / "trained")
    except BudgetExhausted:
        notes.append(not_trained)
        return changed
    notes.extend(learned.notes)
    manifest["training"] = learned.manifest
    manifest["replay"] |= {"training": learned.manifest.pop("replay")}
    return learned.model or changed
