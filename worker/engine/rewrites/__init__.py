"""Rewrites of a graph that change no result: each a small unit that says in how many places it applied.

They are exact but for the order in which float32 sums are taken. `worker.engine.preparation` proves each on the model
at hand and leaves out one that does not hold there.
"""

from collections.abc import Callable

import onnx_ir as ir

from worker.engine.rewrites.batch_norm import fold_batch_norm
from worker.engine.rewrites.global_pool import pool_globally
from worker.engine.rewrites.masked_softmax import guard_by_mask
from worker.engine.rewrites.pad import fold_pad
from worker.engine.rewrites.product_bias import fold_product_bias
from worker.engine.rewrites.reshape import fix_reshape_targets

REWRITES: dict[str, Callable[[ir.Model], int]] = {
    "folding BatchNorm": fold_batch_norm,
    "folding Pad into the convolution behind it": fold_pad,
    "averaging over space by GlobalAveragePool": pool_globally,
    "telling rows that are masked whole from the mask": guard_by_mask,
    "turning matrix products with bias into Gemm": fold_product_bias,
    "fixing the targets of Reshape": fix_reshape_targets,
}
