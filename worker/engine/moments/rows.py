"""Rows of a product: what one output element is the sum of, the patch under a filter or the vector before a matrix."""

import math

import numpy as np
import onnx_ir as ir

from worker.engine.moments.products import Product
from worker.engine.nodes import integers, text


def rows_of(product: Product, array: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`(n, G, K)` float32: at most `count` rows of what `product` computes from its input `array`, drawn at random."""
    return drawn_rows(product, array, count, generator)[0]


def drawn_rows(
    product: Product, array: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same, and the numbers of the places that were drawn, `(n,)`, rising: see `results_at`."""
    if product.node.op_type != "Conv":
        fed = product.fed(array)
        flat = fed.reshape(-1, 1, fed.shape[-1])
        picked = _picked(len(flat), count, generator)
        return (flat if len(picked) == len(flat) else flat[picked]), picked
    windows = np.moveaxis(_windows(product, array), 1, array.ndim - 1)
    places = windows.shape[: array.ndim - 1]
    picked = _picked(math.prod(places), count, generator)
    patches = windows[np.unravel_index(picked, places)]
    rows = np.ascontiguousarray(patches).reshape(len(picked), product.groups, -1).astype(np.float32, copy=False)
    return rows, picked


def results_at(product: Product, array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`(n, C)`: what the rows of `places` came to, from the product's output `array` or one that stands for it."""
    if product.node.op_type == "Conv":
        array = np.moveaxis(array, 1, -1)
    *indexed, channels = array.shape
    results: np.ndarray = array[np.unravel_index(places, indexed)].reshape(len(places), channels)
    return results


def _picked(places: int, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(places) if places <= count else np.sort(generator.choice(places, count, replace=False))


def _windows(product: Product, array: np.ndarray) -> np.ndarray:
    """`(N, C, H', W', h, w)`, or with other axes of space: the patch under the filter at every place of the output."""
    kernel, node = product.weight_shape[2:], product.node
    ones = (1,) * len(kernel)
    strides, dilations = integers(node, "strides", ones), integers(node, "dilations", ones)
    extent = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    padded = np.pad(array, ((0, 0), (0, 0), *_pads(node, array.shape[2:], extent, strides)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=tuple(range(2, array.ndim)))
    steps = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    return windows[steps]


def _pads(
    node: ir.Node, space: tuple[int, ...], extent: tuple[int, ...], strides: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Zeros before and behind each axis of space. ONNX, operator Conv, attribute auto_pad."""
    automatic = text(node, "auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, reach, step in zip(space, extent, strides, strict=True):
            total = max(0, (-(-size // step) - 1) * step + reach - size)
            small, large = total // 2, total - total // 2
            sides.append((small, large) if automatic == "SAME_UPPER" else (large, small))
        return sides
    none = (0, 0) * len(space)
    pads = integers(node, "pads", none) if automatic == "NOTSET" else none
    return list(zip(pads[: len(space)], pads[len(space) :], strict=True))
