"""Fold constants and BatchNorm, drop dead code, fuse transformer patterns.

Folding is ONNX Runtime's BASIC level (https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html).
"""

from app.recipes.graph import OptimizeGraph
from worker.engine.fusions import fused, patterns
from worker.engine.graph import computes_the_same
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import changes, keep_sums_apart, leave_to_loading, operator_counts, prepared

# Without one of these no transformer pattern can match.
TRANSFORMER_SIGNS = frozenset({"Softmax", "Erf", "Tanh", "LayerNormalization", "ReduceMean"})


def apply(model: ModelFile, config: OptimizeGraph, context: PassContext) -> PassResult:
    """Notes say what was folded and fused, and what was tried and left out."""
    context.phase("optimizing")
    preparation = prepared(model, context, config.opset, sums_apart=False, keep_halves=True)
    context.progress(0.5)
    counts = operator_counts(preparation.model.structure())
    if config.fuse_transformers is not False and "MatMul" in counts and TRANSFORMER_SIGNS & counts.keys():
        context.check_time("fusing transformer patterns")
        if preparation.attempt(
            "fusing transformer patterns", lambda file, to: fused(file, to, patterns(context.device))
        ):
            after = operator_counts(preparation.model.structure())
            preparation.notes.extend(changes(counts, after) or ["No transformer pattern was found to fuse."])
    keep_sums_apart(preparation, context.device)
    leave_to_loading(preparation)
    if computes_the_same(model.structure(), preparation.model.structure()):
        return PassResult(model, False, [*preparation.notes, "Nothing was left to fold or fuse."])
    notes = [*preparation.notes, f"Applied: {', '.join(preparation.applied)}."]
    return PassResult(preparation.model, True, notes, {"applied": preparation.applied})
