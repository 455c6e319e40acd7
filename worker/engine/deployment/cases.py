"""Inputs at the edge: of the values that the data holds, and of the shapes that the model takes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.deployment.requests import Case, Variant
from worker.engine.feeds import FeedDescription, Feeds
from worker.engine.graph import TensorFace, attribute_of, nodes_of
from worker.engine.random_input import Fill, index_carriers
from worker.engine.sessions import Feed
from worker.engine.stored_arrays import ArrayStore

LARGEST_BATCH = 32
# Of axes that are open beside the batch; a model with more has states among its inputs, whose sizes hang together.
MOST_OPEN_AXES = 4
# Where nothing bounds an axis.
LONGER = 2
LONGEST_LENGTH = 8192
# Samples whose extremes are taken: reading all of a large dataset would take longer than the check.
SAMPLES_READ = 512
ORDINARY = "an ordinary sample"


@dataclass(frozen=True)
class Ground:
    """What cases are made from: an ordinary call, the data that it came from, and what the graph says of its inputs."""

    inputs: list[TensorFace]
    ordinary: Feed
    data: Feeds
    bounds: dict[str, Fill]
    structure: onnx.ModelProto
    store: ArrayStore

    def case(self, name: str, *ways: tuple[str, Feed]) -> Case:
        """The first way that works is taken."""
        return Case(name=name, variants=[Variant(words=words, feed=self._described(feed)) for words, feed in ways])

    def _described(self, feed: Feed) -> FeedDescription:
        dtypes = {face.name: face.dtype for face in self.inputs}
        arrays = {name: _storable(array)[None] for name, array in feed.items()}
        return Feeds(arrays, dtypes, whole=frozenset(feed), sample_count=1).describe(self.store)


def value_cases(ground: Ground) -> list[Case]:
    """The ordinary call, zeros, ones, and the lowest and highest value of every input everywhere at once."""
    low, high = _extremes(ground)
    of = ground.data.source
    zeros = {name: _full(array, 0) for name, array in ground.ordinary.items()}
    ones = {name: _full(array, _one(ground.bounds.get(name))) for name, array in ground.ordinary.items()}
    return [
        ground.case("ordinary", (ORDINARY, ground.ordinary)),
        ground.case("zeros", ("zeros in every input", zeros)),
        ground.case("ones", ("ones in every input", ones)),
        ground.case("lowest", (f"the lowest value that {of} holds, everywhere", low)),
        ground.case("highest", (f"the highest value that {of} holds or a table has a row for, everywhere", high)),
    ]


def shape_cases(ground: Ground) -> list[Case]:
    """The ordinary call, one sample and many, and every other open axis at its shortest and longest."""
    groups = open_axes(ground.inputs)
    cases = [ground.case("ordinary", (ORDINARY, ground.ordinary))]
    first = next((key for key, places in groups.items() if any(position == 0 for _, position in places)), None)
    if first is not None:
        places = groups.pop(first)
        sizes = [LARGEST_BATCH >> step for step in range(LARGEST_BATCH.bit_length() - 1)]
        batches = [(f"a batch of {size}", resized(ground.ordinary, places, size)) for size in sizes]
        cases.append(ground.case("smallest_batch", ("a batch of 1", resized(ground.ordinary, places, 1))))
        cases.append(ground.case("largest_batch", *batches))
    rows = length_bounds(ground.structure, ground.inputs)
    for key, places in list(groups.items())[:MOST_OPEN_AXES]:
        name, position = places[0]
        usual = ground.ordinary[name].shape[position]
        ways = [(f"{size} along {key}, the rows of a table", size) for size in rows if usual <= size <= LONGEST_LENGTH]
        ways.append((f"{LONGER * usual} along {key}, as no bound is known", LONGER * usual))
        longest = [(words, resized(ground.ordinary, places, size)) for words, size in ways]
        cases.append(ground.case(f"shortest {key}", (f"1 along {key}", resized(ground.ordinary, places, 1))))
        cases.append(ground.case(f"longest {key}", *longest))
    return cases


def open_axes(inputs: Iterable[TensorFace]) -> dict[str, list[tuple[str, int]]]:
    """By name of the axis, or by its position where it has none: inputs and positions, which must be of one size."""
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for face in inputs:
        for position, axis in enumerate(face.shape or ()):
            if not isinstance(axis, int):
                groups[axis or f"axis {position}"].append((face.name, position))
    return dict(groups)


def length_bounds(model: onnx.ModelProto, inputs: list[TensorFace]) -> list[int]:
    """How long a sequence may be, smallest first: rows of tables that are read by position, not by an input's values.

    Position embeddings are gathered by a Range or by a constant row of positions, or sliced out of a constant.
    """
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    carriers = {name for face in inputs for name in index_carriers(model.graph, face.name)}
    found = set()
    for node in nodes_of(model.graph):
        shape = dims.get(node.input[0], []) if node.input else []
        by_position = node.op_type == "Gather" and len(shape) > 1 and attribute_of(node, "axis", 0) == 0
        if by_position and node.input[1] not in carriers and node.input[1] not in dims:
            found.add(shape[0])
        elif node.op_type == "Slice" and len(shape) > 1:
            found.add(max(shape[:2]))
    return sorted(size for size in found if size > 1)


def resized(feed: Feed, places: list[tuple[str, int]], size: int) -> Feed:
    """These axes at `size`, the ordinary values repeated or cut."""
    made = dict(feed)
    for name, position in places:
        usual = made[name].shape[position]
        if usual:
            made[name] = np.take(made[name], np.arange(size) % usual, axis=position)
    return made


def _extremes(ground: Ground) -> tuple[Feed, Feed]:
    low, high = {}, {}
    for name, array in ground.ordinary.items():
        values = ground.data.arrays[name][:SAMPLES_READ]
        if array.dtype.kind not in "fiub":
            low[name] = high[name] = array
            continue
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        least, most = (finite.min(), finite.max()) if finite.size else (0, 0)
        low[name], high[name] = _full(array, least), _full(array, _highest(ground, name, most))
    return low, high


def _one(fill: Fill | None) -> int:
    """1, unless a table that the input indexes has one row alone."""
    return 1 if fill is None else min(1, fill.high - 1)


def _highest(ground: Ground, name: str, seen: object) -> object:
    """What the data holds, or the last row of the table that an input indexes where the graph shows one."""
    fill = ground.bounds.get(name)
    return seen if fill is None else max(int(seen), fill.high - 1)  # type: ignore[call-overload]  # a number


def _full(array: np.ndarray, value: object) -> np.ndarray:
    return np.full_like(array, "" if array.dtype.kind in "OUS" else value)


def _storable(array: np.ndarray) -> np.ndarray:
    return array.astype(str) if array.dtype == object else array
