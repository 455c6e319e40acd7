"""The model trained on, with labels: cross-entropy where they number classes, squared error where they are numbers.

The graph becomes a torch module that is proven node by node against ONNX Runtime, is trained, and gives its weights
back to the user's own file, in which nothing else moves (`worker.engine.trainable`, `worker.engine.training`). A part
of the data that is not trained on judges every epoch, and chooses the one that is kept.
"""

from app.recipes.training import FineTune
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.trainable.write_back import write_back
from worker.engine.training.account import for_manifest, in_words, replayed
from worker.engine.training.lesson import plan_lesson
from worker.engine.training.randomness import repeatable
from worker.engine.training.student import prepare_student, training_data


def apply(model: ModelFile, config: FineTune, context: PassContext) -> PassResult:
    """Notes say what was learned from, loss and metric before and after, the epoch that was kept, and what stayed."""
    context.phase("preparing")
    with repeatable(context.threads):
        student = prepare_student(model, training_data(context), config, context)
        lesson = plan_lesson(student, config, context)
        trained = lesson.run(context)
    notes, manifest = in_words(lesson, trained), for_manifest(lesson, trained)
    manifest["replay"] = replayed(lesson, trained)
    if not trained.improved:
        return PassResult(model, False, notes, manifest)
    return PassResult(write_back(model, trained.state, context.scratch / "result"), True, notes, manifest)
