"""Importance: a group in, a score for each of its units out; the smallest go first.

`magnitude` takes the weights alone, l1 or l2: those that make a unit and those that read it, each product's as a share
of the mean of its units (H. Li et al., Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710).
`obs` takes what the products that read a unit compute: what of their outputs is lost, as a share of their power, when
the unit goes and the others make up for it (`worker.engine.structure.surgeon`). `fisher` takes what answers feel of it
(`worker.engine.training.fisher`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from worker.engine.model_file import ModelFile
from worker.engine.moments.products import Product
from worker.engine.moments.reading import MOST_TERMS, input_moments, within_memory
from worker.engine.nodes import CONV_RANK, MATRIX_RANK, constant_tensor, is_operator
from worker.engine.pass_contract import PassContext
from worker.engine.structure.groups import Group, Part, Structure
from worker.engine.structure.recurrence import GATES, product_of
from worker.engine.structure.surgeon import Reader, removal_scores
from worker.engine.structure.wiring import Slot

# Of the pass, as it is told to whoever waits.
OBS_SHARE = 0.5
# Of second moments, float64.
MOST_ELEMENTS = 64 << 20
LEAST = float(np.finfo(np.float32).tiny)
Scores = dict[str, np.ndarray]
"""By name of a group `(width,)` float64."""


@dataclass(frozen=True)
class Scored:
    """Every group, and in words what there was no time for, or what was left out."""

    scores: Scores
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Constants:
    """The weights of a structure as its nodes read them."""

    structure: Structure

    def read(self, slot: Slot) -> np.ndarray:
        """float32, of the shape that the slot's node reads."""
        value = self.structure.model.graph.initializers.get(slot.weight.name)
        tensor = None if value is None else constant_tensor(value)
        if tensor is None:
            raise ValueError(f"{slot.weight.name!r} is no constant")
        return slot.weight.read(tensor.numpy())

    def by_unit(self, part: Part, array: np.ndarray, width: int) -> np.ndarray:
        """Sums `(width,)` of an array of the weight's shape over what each unit has of it."""
        axis = part.slot.axis
        along = array.sum(axis=tuple(index for index in range(array.ndim) if index != axis), dtype=np.float64)
        lies = part.units >= 0
        return np.bincount(part.units[lies], along[lies], width)


def magnitude_scores(structure: Structure, power: Literal[1, 2]) -> Scores:
    """Mean over producers and consumers of a unit's norm, as a share of the mean of all units."""
    constants, scores = Constants(structure), Scores()
    for group in structure.groups:
        total = np.zeros(group.width)
        for part in (*group.producers, *group.consumers):
            norms = constants.by_unit(part, np.abs(constants.read(part.slot)) ** power, group.width) ** (1 / power)
            total += norms / max(float(norms.mean()), LEAST)
        scores[group.name] = total / (len(group.producers) + len(group.consumers))
    return scores


def obs_scores(
    structure: Structure,
    model: ModelFile,
    context: PassContext,
    samples: int,
    known: Scores,
    is_over: Callable[[], bool],
) -> None:
    """Add to `known` the groups that it lacks, one at a time, as each takes second moments of all that reads it; as
    long as time is not over.

    Raises:
        ModelFails: a call fails.

    """
    constants = Constants(structure)
    parts = [part for group in structure.groups for part in group.consumers]
    products = {part: _product(part.slot, constants) for part in parts}

    def elements(group: Group) -> int:
        terms = [product.terms for part in group.consumers if (product := products[part]) is not None]
        return sum(count**2 if count <= MOST_TERMS else count for count in terms)

    # Each pass over the data reads as many groups as there is room for. Which rows it draws depends on all of them.
    for groups in within_memory(structure.groups, elements, MOST_ELEMENTS):
        missing = [group for group in groups if group.name not in known]
        if not missing or is_over():
            continue
        wanted = {product.name: product for group in groups for part in group.consumers if (product := products[part])}
        moments = dict(_second_moments(model, wanted, context, samples))
        for group in missing:
            if is_over():
                return
            readers = [_reader(part, products[part], constants.read(part.slot), moments) for part in group.consumers]
            found = removal_scores(readers, group.width, is_over)
            if found is None:
                return
            known[group.name] = found
            context.progress(OBS_SHARE * len(known) / len(structure.groups))


def completed(structure: Structure, found: Scores, *, together: bool) -> Scored:
    """The norms of their weights for groups that are not among those `found`; for all where one threshold holds for all
    `together`, as a share of what is lost and a norm cannot be compared.
    """
    missing = sum(group.name not in found for group in structure.groups)
    if not missing:
        return Scored(found)
    norms = magnitude_scores(structure, 2)
    words = f"Time was short: units of {missing} of {len(norms)} groups were not scored by `obs`, and "
    if together:
        return Scored(norms, [words + "all groups, as they are compared with each other, by `l2` instead."])
    return Scored({name: found.get(name, norm) for name, norm in norms.items()}, [words + "by `l2` instead."])


def fisher_scores(
    structure: Structure, products: Iterable[Mapping[str, np.ndarray]], samples: int, is_over: Callable[[], bool]
) -> Scored:
    """The mean over samples of (sum g w)^2, g w by the names of constants in their own shapes: over `samples`, or as
    many, but one at least, as there is time for.
    """
    constants, count, short = Constants(structure), 0, False
    totals = {group.name: np.zeros(group.width) for group in structure.groups}
    for sample in products:
        count += 1
        for group in structure.groups:
            felt = np.zeros(group.width)
            for part in group.producers:
                weight = part.slot.weight
                if weight.name in sample:
                    felt += constants.by_unit(part, weight.read(sample[weight.name]), group.width)
            totals[group.name] += np.square(felt)
        short = count < samples and is_over()
        if short:
            break
    words = [f"Time was short: `fisher` scored units on {count} of {samples} samples."] if short else []
    return Scored({name: total / max(1, count) for name, total in totals.items()}, words)


def _second_moments(
    model: ModelFile, products: Mapping[str, Product], context: PassContext, samples: int
) -> Iterable[tuple[str, np.ndarray]]:
    """By product `(K, K)`; of one with more terms than can be told from each other what they are each, `(K,)`."""
    for product, moments in input_moments(model, products.values(), context, samples, with_products=True):
        if moments.count and product.groups == 1:
            found = moments.power[0] if moments.products is None else moments.products / moments.count
            yield product.name, found.astype(np.float64)


def _product(slot: Slot, constants: Constants) -> Product | None:
    """None where what it is fed cannot be read as rows: nothing is known of it but its weight then."""
    node: ir.Node = slot.node
    shape = constants.read(slot).shape
    if is_operator(node, *GATES):
        return product_of(slot, shape)
    is_read = is_operator(node, "Conv", "Gemm") or (is_operator(node, "MatMul") and slot.axis == 0)
    rank = CONV_RANK if node.op_type == "Conv" else MATRIX_RANK
    return Product(node, shape) if is_read and len(shape) == rank else None


def _reader(part: Part, product: Product | None, weight: np.ndarray, moments: Mapping[str, np.ndarray]) -> Reader:
    axis = part.slot.axis
    if product is not None:
        rows = product.rows(weight)
        found = moments.get(product.name)
    else:
        # Terms along the input axis first, all else in rows: enough where moments are not known.
        rows, found = np.moveaxis(weight, axis, -1).reshape(-1, weight.shape[axis]), None
    units = np.repeat(part.units, rows.shape[1] // weight.shape[axis])
    # What is no number cannot be inverted: as little is known then as of what cannot be read.
    if found is None or not np.isfinite(found).all():
        found = np.ones(rows.shape[1])
    largest = float(np.finfo(np.float32).max)
    rows = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=largest, neginf=-largest)
    return Reader(rows, found, units) if found.ndim > 1 else _apart(rows, found, units)


def _apart(rows: np.ndarray, power: np.ndarray, units: np.ndarray) -> Reader:
    """A reader that takes as much of every unit, with a term for each: as terms of `power` `(K,)` that nothing makes up
    for, all that counts is what goes with them.
    """
    width = int(units.max(initial=-1)) + 1
    lost = np.bincount(units[units >= 0], (np.square(rows).sum(axis=0) * power)[units >= 0], width)
    return Reader(np.sqrt(lost)[None], np.eye(width), np.arange(width))
