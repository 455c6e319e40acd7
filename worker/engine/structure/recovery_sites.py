"""Sites: the layers of a cut model whose constants can make up for the cut, and how deep in it each lies."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.moments.products import Product
from worker.engine.nodes import CONV_RANK, MATRIX_RANK, constant_tensor, integer, is_operator, number, only_reader

# Variances below this share of the original's say that a channel is dead; nothing is learned of it.
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Room:
    """Where what has to be added to a product can stand: the constant `name` becomes `base` + `sign` * shift."""

    name: str
    base: np.ndarray
    sign: float = 1.0

    def taking(self, shift: np.ndarray) -> np.ndarray:
        """The constant, of the shape of `base`, with a shift `(C,)` added to the product."""
        return self.base + self.sign * shift.reshape(self.base.shape)


@dataclass(frozen=True)
class Linear:
    """A product whose weight nothing else reads."""

    product: Product
    weight_name: str
    weight: np.ndarray
    room: Room | None
    depth: int

    @property
    def output(self) -> str:
        return self.product.node.outputs[0].name or ""


@dataclass(frozen=True)
class Normalization:
    """A BatchNormalization by its running statistics, `(C,)` each, and the names of their constants."""

    source: str
    mean_name: str
    variance_name: str
    mean: np.ndarray
    variance: np.ndarray
    depth: int


@dataclass
class Sites:
    """In the order of the graph. What a cut does not reach, computes what it did, and is none."""

    linear: list[Linear] = field(default_factory=list)
    normalizations: list[Normalization] = field(default_factory=list)

    @property
    def depths(self) -> list[int]:
        return sorted({site.depth for site in self.linear} | {site.depth for site in self.normalizations})

    def between(self, first: int, last: int) -> "Sites":
        """Those of a depth from `first` to `last`."""
        return Sites(
            [site for site in self.linear if first <= site.depth <= last],
            [site for site in self.normalizations if first <= site.depth <= last],
        )


def find_sites(original: ir.Model, pruned: ir.Model) -> Sites:
    """Nodes of the two are paired by the names of their outputs; one that reads another value is reached as well."""
    faces = {node.outputs[0].name: _face(node) for node in original.graph if node.outputs}
    found, depths, taken = Sites(), dict[ir.Value, int](), set[str]()
    for node in pruned.graph:
        fed = [depths[value] for value in node.inputs if value is not None and value in depths]
        reached = bool(fed) or faces.get(node.outputs[0].name) != _face(node)
        if not reached:
            continue
        depth = max(fed, default=0) + 1
        site = _linear(node, depth)
        if site is not None:
            found.linear.append(site)
            taken |= {site.room.name} if site.room is not None else set()
        elif is_operator(node, "BatchNormalization"):
            normalization = _normalization(node, depth)
            if normalization is not None and normalization.mean_name not in taken:
                found.normalizations.append(normalization)
        else:
            depth -= 1
        depths.update(dict.fromkeys(node.outputs, depth))
    return found


def _face(node: ir.Node) -> tuple[list[str | None], int | None]:
    """What it reads, and its terms: behind a block that went, it reads another value than it did."""
    return [value.name for value in node.inputs if value is not None and constant_tensor(value) is None], _terms(node)


def _terms(node: ir.Node) -> int | None:
    """Of one output element; None of what is no product with a constant."""
    weight = _weight(node)
    return None if weight is None else Product(node, weight.shape).terms


def _weight(node: ir.Node) -> np.ndarray | None:
    if not is_operator(node, "Conv", "Gemm", "MatMul") or len(node.inputs) < MATRIX_RANK:
        return None
    return _constant(node.inputs[1])


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """A float32 constant."""
    tensor = None if value is None else constant_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


def _linear(node: ir.Node, depth: int) -> Linear | None:
    weight, operand = _weight(node), node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or operand is None or len(operand.uses()) != 1 or operand.is_graph_output():
        return None
    product = Product(node, weight.shape)
    if weight.ndim != (CONV_RANK if node.op_type == "Conv" else MATRIX_RANK) or product.groups != 1:
        return None
    if number(node, "alpha", 1.0) != 1 or number(node, "beta", 1.0) != 1 or integer(node, "transA", 0):
        return None
    has_bias = len(node.inputs) > MATRIX_RANK and node.inputs[MATRIX_RANK] is not None
    room = _own_bias(product) if has_bias else _room_behind(product)
    if has_bias and room is None:
        return None
    return Linear(product, operand.name or "", weight, room, depth)


def _own_bias(product: Product) -> Room | None:
    bias = product.node.inputs[MATRIX_RANK]
    values = _unshared(bias, product)
    return None if values is None or bias is None else Room(bias.name or "", np.zeros(values.shape))


def _room_behind(product: Product) -> Room | None:
    output = product.node.outputs[0]
    reader = only_reader(output)
    if is_operator(reader, "BatchNormalization") and reader is not None:
        mean = reader.inputs[3]
        values = _unshared(mean, product)
        return None if values is None or mean is None else Room(mean.name or "", values, -1.0)
    if is_operator(reader, "Add") and reader is not None and product.node.op_type != "Conv":
        other = reader.inputs[1] if reader.inputs[0] is output else reader.inputs[0]
        values = _unshared(other, product)
        return None if values is None or other is None else Room(other.name or "", values)
    return None


def _unshared(value: ir.Value | None, product: Product) -> np.ndarray | None:
    """A constant with one number a channel along its last axis, that nothing else reads."""
    values = _constant(value)
    if value is None or values is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return values if values.shape[-1:] == (product.channel_count,) and values.size == product.channel_count else None


def _normalization(node: ir.Node, depth: int) -> Normalization | None:
    if integer(node, "training_mode", 0):
        return None
    mean, variance = node.inputs[3], node.inputs[4]
    values = _constant(mean), _constant(variance)
    source = node.inputs[0]
    if mean is None or variance is None or source is None or values[0] is None or values[1] is None:
        return None
    if len(mean.uses()) != 1 or len(variance.uses()) != 1:
        return None
    return Normalization(source.name or "", mean.name or "", variance.name or "", values[0], values[1], depth)


class Statistics:
    """Mean and variance of the channels of arrays `(N, C, ...)`."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, np.zeros(0), np.zeros(0)

    def add(self, array: np.ndarray) -> None:
        """A float array `(N, C, ...)`; summed in float64."""
        axes = (0, *range(2, array.ndim))
        first = not self._count
        self._count += array.size // array.shape[1]
        total, squares = array.sum(axis=axes, dtype=np.float64), np.square(array, dtype=np.float64).sum(axis=axes)
        self._total = total if first else self._total + total
        self._squares = squares if first else self._squares + squares

    def of(self, channels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """`(C,)` each, of these channels or of all."""
        mean = self._total / max(1, self._count)
        variance = np.maximum(self._squares / max(1, self._count) - np.square(mean), 0)
        return (mean, variance) if channels is None else (mean[channels], variance[channels])


def estimated(
    site: Normalization, now: Statistics, then: Statistics, channels: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """New running statistics by the names of their constants; none where the two models' channels cannot be paired.

    What stands in the file is of more data than there is here: it moves as the statistics of this data do.
    """
    (mean, variance), (old_mean, old_variance) = now.of(None), then.of(channels)
    if mean.shape == old_mean.shape == site.mean.shape:
        alive = old_variance > LEAST_VARIANCE * max(float(old_variance.max(initial=0)), 1e-30)
        ratio = np.where(alive, variance / np.where(alive, old_variance, 1), 1)
        yield site.mean_name, site.mean + mean - old_mean
        yield site.variance_name, site.variance * np.where(ratio > LEAST_VARIANCE, ratio, 1)
