"""The model trained to answer as a teacher does: its original, or another model. Needs no labels, and uses them.

L = alpha L_soft + beta L_features + gamma L_hard (`worker.engine.training.objective`): Hinton et al., Distilling the
Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531); features as in FitNets
(https://arxiv.org/abs/1412.6550). The teacher is any model that ONNX Runtime runs; the student becomes a torch module
and gets its weights back as in `fine_tune`.
"""

import shutil
from dataclasses import replace

from app.recipes.training import Distill
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.training.learning import learn


class NoSuchModel(UserFault):
    code, title = "no_such_model", "A model that the recipe names is not there"


def apply(model: ModelFile, config: Distill, context: PassContext) -> PassResult:
    """As `fine_tune`. With a `student` of its own the result is that model, trained, whatever passes came before."""
    context.phase("preparing")
    teacher = _other(config, "teacher", context) or context.original or model
    chosen = _other(config, "student", context)
    student = chosen or model
    if chosen is not None:
        # What the job's model held under the same names was pruned nowhere in an upload of its own.
        context = replace(context, original=None)
    learned = learn(student, teacher, config, context, context.scratch / "result")
    manifest = learned.manifest | {"teacher_sha256": teacher.sha256(), "student_sha256": student.sha256()}
    if learned.model is not None:
        return PassResult(learned.model, True, learned.notes, manifest)
    if chosen is None:
        return PassResult(model, False, learned.notes, manifest)
    return PassResult(_copied(chosen, context), True, learned.notes, manifest)


def _other(config: Distill, argument: str, context: PassContext) -> ModelFile | None:
    """
    Raises:
        NoSuchModel: the job was given no such model.

    """
    named = config.other_models().get(argument)
    if named is None:
        return None
    if str(named) not in context.others:
        raise NoSuchModel(f"`{argument}` is {named}, a model that this job was not given.", "Name an uploaded model.")
    return context.others[str(named)]


def _copied(model: ModelFile, context: PassContext) -> ModelFile:
    folder = context.scratch / "result"
    folder.mkdir()
    for file in model.files():
        shutil.copyfile(file, folder / file.name)
    return ModelFile(folder / model.path.name)
