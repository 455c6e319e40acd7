"""N:M sparsity: of every M consecutive weights along the input axis the N largest stay.

Mishra et al., Accelerating Sparse Deep Neural Networks (https://arxiv.org/abs/2104.08378), for any N and M.
"""

import numpy as np

from worker.engine.pruning.thresholds import SLAB_ELEMENTS

# Smaller than any magnitude: what fills up a last group is the first to go.
PADDING = -1.0


def beyond_pattern(values: np.ndarray, axis: int, kept: int, size: int, groups: int = 1) -> np.ndarray:
    """Bool of the shape of `values`: what goes, so that of `size` neighbours along `axis` no more than `kept` stay.

    Of equal magnitudes those that stand first go first. `groups`: as of a `Place`; groups of neighbours do not reach
    from one part of the axis into the next. A last group of fewer than `size` keeps its `kept` largest.
    """
    moved = np.moveaxis(values, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1] // groups)
    taken = np.empty(rows.shape, np.bool_)
    step = max(1, SLAB_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        taken[start : start + step] = _smallest(np.abs(rows[start : start + step]), kept, size)
    return np.moveaxis(taken.reshape(moved.shape), -1, axis)


def _smallest(magnitudes: np.ndarray, kept: int, size: int) -> np.ndarray:
    """Bool `(R, K)` of magnitudes `(R, K)`: in each run of `size` all but the `kept` largest."""
    count, length = magnitudes.shape
    padded = np.pad(magnitudes, ((0, 0), (0, -length % size)), constant_values=PADDING).reshape(count, -1, size)
    smallest = np.argsort(padded, axis=-1, kind="stable")[..., : size - kept]
    taken = np.zeros(padded.shape, np.bool_)
    np.put_along_axis(taken, smallest, values=True, axis=-1)
    return taken.reshape(count, -1)[:, :length]
