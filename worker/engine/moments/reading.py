"""Running data through a model and keeping moments of the rows of its products.

Rows are drawn at random from real calls, a bounded number a product; as many products are read in one pass over the
data as fit under a bound on memory.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from worker.engine.calibration.observing import FLOAT, element_counts, exposed_calls
from worker.engine.extent import Extent
from worker.engine.model_file import ModelFile
from worker.engine.moments.moments import CrossMoments, Moments
from worker.engine.moments.products import Product
from worker.engine.moments.rows import drawn_rows, results_at, rows_of
from worker.engine.pass_contract import PassContext

# Twice as many rows as a product has terms determine its second moments; more than this settle nothing.
ROWS_A_TERM, LEAST_ROWS, MOST_ROWS = 2, 2048, 20_000
# Of one pass over the data: second moments between all terms of all products, and what these read in a call.
GROUP_ELEMENTS = 96 << 20
MOST_HELD_ROWS = 1024
# Second moments between more terms than that take half a gigabyte, and what is computed with them several times that.
MOST_TERMS = 8192

Item = TypeVar("Item")


def input_moments(
    model: ModelFile,
    products: Iterable[Product],
    context: PassContext,
    samples: int,
    with_products: bool,
    extent: Extent | None = None,
) -> Iterator[tuple[Product, Moments]]:
    """Moments of the rows of each of `products`, one or a few products at a time.

    `with_products` asks for second moments between terms too, for those whose filters see every channel and have no
    more than `MOST_TERMS`.

    Rows are drawn as for all of `samples`; those that are read reach as far as `extent`, which the first pass over the
    data settles for all of them.

    Raises:
        ModelFails: a call fails.

    """
    chosen, calls = _calls(context, samples)
    extent = Extent() if extent is None else extent
    products = list(products)
    read = element_counts(model, (product.source for product in products), context)
    between = {one.name for one in products if with_products and one.groups == 1 and one.terms <= MOST_TERMS}

    def elements(product: Product) -> int:
        held = product.terms**2 if product.name in between else 2 * product.terms
        return held + read[product.source]

    groups = list(within_memory(products, elements, GROUP_ELEMENTS))
    for number, group in enumerate(groups):
        started, come = time.monotonic(), 0
        generator = np.random.default_rng([context.seed, number])
        moments = {product.name: Moments() for product in group}
        held = {product.name: _Held(product.terms) for product in group}
        names = {product.source: FLOAT for product in group}
        for arrays in exposed_calls(model, names, context, chosen, f"inputs-{number}"):
            for product in group:
                rows = rows_of(product, arrays[product.source], -(-_row_count(product) // calls), generator)
                for (block,) in held[product.name].add(rows):
                    moments[product.name].add(block, product.name in between)
            come = min(come + context.feeds.samples_per_call(1), len(chosen))
            if come < len(chosen) and extent.ends(come, len(groups) * (time.monotonic() - started), context):
                break
        extent.samples = come
        for product in group:
            for (block,) in held[product.name].rest():
                moments[product.name].add(block, product.name in between)
            yield product, moments[product.name]


def cross_moments(
    fed: ModelFile,
    products: Iterable[tuple[Product, str]],
    wanted: ModelFile,
    context: PassContext,
    samples: int,
) -> Iterator[tuple[Product, CrossMoments]]:
    """Moments between what products of `fed` read and the tensors of `wanted` that each is to give, by its name there.

    Both models run on the same calls. Only products of one group, those of more than `MOST_TERMS` left out; a result
    has an axis of channels as the product's output has, of any length, and the same places.

    Raises:
        ModelFails: a call fails.

    """
    chosen, calls = _calls(context, samples)

    def elements(pair: tuple[Product, str]) -> int:
        return pair[0].terms * (pair[0].terms + pair[0].channel_count)

    within = [pair for pair in products if pair[0].terms <= MOST_TERMS]
    for number, group in enumerate(within_memory(within, elements, GROUP_ELEMENTS)):
        generator = np.random.default_rng([context.seed, number])
        moments = {product.name: CrossMoments() for product, _ in group}
        held = {product.name: _Held(product.terms) for product, _ in group}
        read = {product.source: FLOAT for product, _ in group}
        given = {name: FLOAT for _, name in group}
        inputs = exposed_calls(fed, read, context, chosen, f"fed-{number}")
        results = exposed_calls(wanted, given, context, chosen, f"wanted-{number}")
        for arrays, targets in zip(inputs, results, strict=True):
            for product, name in group:
                count = -(-_row_count(product) // calls)
                rows, places = drawn_rows(product, arrays[product.source], count, generator)
                for block in held[product.name].add(rows, results_at(product, targets[name], places)):
                    moments[product.name].add(*block)
        for product, _ in group:
            for block in held[product.name].rest():
                moments[product.name].add(*block)
            yield product, moments[product.name]


class _Held:
    """Rows of several calls until they are many: a call may hold one, and every update goes over `(K, K)`."""

    def __init__(self, terms: int) -> None:
        self._enough, self._count = min(terms, MOST_HELD_ROWS), 0
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Arrays of one row a place; what was held with them in one piece, once that is enough."""
        self._parts.append(arrays)
        self._count += len(arrays[0])
        return self.rest() if self._count >= self._enough else []

    def rest(self) -> list[tuple[np.ndarray, ...]]:
        """What is held, in one piece; nothing where that is nothing."""
        parts, self._parts, self._count = self._parts, [], 0
        return [tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))] if parts else []


def _calls(context: PassContext, samples: int) -> tuple[np.ndarray, int]:
    """The samples that are read, and the calls that it takes."""
    chosen = np.arange(min(samples, context.feeds.sample_count))
    return chosen, -(-len(chosen) // context.feeds.samples_per_call(1))


def _row_count(product: Product) -> int:
    return min(MOST_ROWS, max(LEAST_ROWS, ROWS_A_TERM * product.terms))


def within_memory(items: Iterable[Item], elements: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Items in their order, as many at a time as hold `most` elements together, one at least."""
    group: list[Item] = []
    held = 0
    for item in items:
        needed = elements(item)
        if group and held + needed > most:
            yield group
            group, held = [], 0
        group.append(item)
        held += needed
    if group:
        yield group
