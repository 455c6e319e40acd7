"""The model trained on, with labels: cross-entropy where they number classes, squared error where they are numbers.

The graph becomes a torch module that is proven node by node against ONNX Runtime, is trained, and gives its weights
back to the user's own file, in which nothing else moves (`worker.engine.trainable`, `worker.engine.training`). A part
of the data that is not trained on judges every epoch, and chooses the one that is kept.
"""

from app.recipes.training import FineTune
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.training.learning import learn


def apply(model: ModelFile, config: FineTune, context: PassContext) -> PassResult:
    """Notes say what was learned from, loss and metric before and after, the epoch that was kept, and what stayed."""
    context.phase("preparing")
    learned = learn(model, None, config, context, context.scratch / "result")
    if learned.model is None:
        return PassResult(model, False, learned.notes, learned.manifest)
    return PassResult(learned.model, True, learned.notes, learned.manifest)
