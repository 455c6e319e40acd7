"""Weights in 4, 8 or 16 bits, arithmetic in float. Needs no data.

Symmetric codes with a scale for each output channel, row of a table or block of a matrix, rounded to the nearest; in
blocks, zero points where they pay (`worker.engine.weight_only`).
"""

from app.recipes.quantization import QuantizeWeights
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.weight_only.storing import store_weights


def apply(model: ModelFile, config: QuantizeWeights, context: PassContext) -> PassResult:
    """Notes say how many weights of which operators are kept in which form, and what stays in float32 and why."""
    return store_weights(model, config, context)
