"""The operators by family, all of them entered into the table."""

from worker.engine.trainable.operators import (
    activations,
    attention,
    convolution,
    detection,
    elementwise,
    fused,
    indexing,
    losses,
    normalization,
    pooling,
    products,
    recurrent,
    reduction,
    resize,
    shapes,
    signal,
)
from worker.engine.trainable.registry import TABLE

__all__ = [
    "TABLE",
    "activations",
    "attention",
    "convolution",
    "detection",
    "elementwise",
    "fused",
    "indexing",
    "losses",
    "normalization",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "resize",
    "shapes",
    "signal",
]
