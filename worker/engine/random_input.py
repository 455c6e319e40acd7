"""Input where no data was given: it respects dtype, declared axes and what bounds the graph shows, and nothing else."""

import math
from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds
from worker.engine.graph import Dimension, TensorFace, attribute_of
from worker.engine.model_file import ModelFile
from worker.engine.sessions import Feed, ModelFails, open_session, run_session

# Axes that the model leaves open, tried in this order until the original runs.
OPEN_AXES = (0, 64, 32, 16, 8, 4, 2, 1)
IMAGE_SIDE, SEQUENCE_LENGTH, CHANNELS = 224, 128, 3
PASS_THROUGH = {"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Slice", "Clip", "Transpose"}
# An image whose last axis is a number no larger than that has its channels there.
IMAGE_RANK, MOST_CHANNELS = 4, 4
DEFAULT_INTEGER_BOUND = 2
RANDOM_SOURCE = "random input"


class ShapesNeeded(UserFault):
    code, title = "shapes_needed", "The shapes of the model's inputs cannot be guessed"


@dataclass(frozen=True)
class Fill:
    """How one input is filled: integers lie in [low, high), a constant wherever `high` is `low` + 1."""

    low: int
    high: int


def random_feed(
    inputs: list[TensorFace], fills: dict[str, Fill], shapes: dict[str, tuple[int, ...]], seed: int
) -> Feed:
    """One call: floats from N(0, 1), integers uniform within their bounds, the same for the same seed."""
    generator = np.random.default_rng(seed)
    return {face.name: _fill(face, fills.get(face.name), shapes[face.name], generator) for face in inputs}


def random_feeds(
    inputs: list[TensorFace], fills: dict[str, Fill], shapes: dict[str, tuple[int, ...]], count: int, seed: int
) -> Feeds:
    """`count` calls of random input."""
    made = [random_feed(inputs, fills, shapes, seed + number) for number in range(count)]
    return Feeds(
        arrays={face.name: np.stack([feed[face.name] for feed in made]) for face in inputs},
        dtypes={face.name: face.dtype for face in inputs},
        whole=frozenset(face.name for face in inputs),
        sample_count=count,
        source=RANDOM_SOURCE,
    )


def working_shapes(
    model: ModelFile, inputs: list[TensorFace], wanted: dict[str, list[int]], batch: int, threads: int
) -> dict[str, tuple[int, ...]]:
    """Shapes at which the model runs: `wanted` ones as given, fixed axes as declared, open ones by trial, those of one
    name all of one size.

    Raises:
        ShapesNeeded: it ran at none of the shapes tried, or an input's rank is unknown and not given.
        ModelFails: every axis is fixed and it fails still.

    """
    for face in inputs:
        if face.shape is None and face.name not in wanted:
            raise ShapesNeeded(
                f"The rank of input {face.name!r} is unknown.", f"Give target.shapes for {face.name!r}, or data."
            )
    fills = integer_bounds(model.structure(), inputs)
    session = open_session(model.path, threads)
    failure: ModelFails | None = None
    for size in OPEN_AXES:
        shapes = _shapes(inputs, wanted, size, batch)
        try:
            run_session(session, random_feed(inputs, fills, shapes, seed=0))
        except ModelFails as error:
            failure = failure or error
            if all(isinstance(axis, int) for face in inputs for axis in face.shape or ()):
                raise
        else:
            return shapes
    raise ShapesNeeded(
        f"The model ran at none of the input shapes that were tried; at the first: {failure}",
        "Give data, or target.shapes for every input whose axes are open.",
    )


def integer_bounds(model: onnx.ModelProto, inputs: list[TensorFace]) -> dict[str, Fill]:
    """Bounds of integer and boolean inputs: masks are all ones, segment ids 0, indices stay within their tables."""
    rows = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    bounds: dict[str, Fill] = {}
    for face in inputs:
        if face.dtype != "bool" and not face.dtype.startswith(("int", "uint")):
            continue
        lowered = face.name.lower()
        if is_mask(face.name):
            bounds[face.name] = Fill(1, 2)
        elif "token_type" in lowered or "segment" in lowered:
            bounds[face.name] = Fill(0, 1)
        else:
            bounds[face.name] = Fill(0, _table_rows(model.graph, face.name, rows) or _default_high(face.dtype))
    return bounds


def is_mask(name: str) -> bool:
    """Whether an input of this name says which places count: nothing else in a file tells."""
    return "mask" in name.lower()


def _default_high(dtype: str) -> int:
    return 256 if dtype == "uint8" else DEFAULT_INTEGER_BOUND


def index_carriers(graph: onnx.GraphProto, name: str) -> set[str]:
    """The values that hold what an input holds, as it is or in another shape."""
    carriers = {name}
    for node in graph.node:
        if node.op_type in PASS_THROUGH and node.input and node.input[0] in carriers:
            carriers.update(node.output)
    return carriers


def _table_rows(graph: onnx.GraphProto, name: str, rows: dict[str, int]) -> int | None:
    """Rows of the smallest table that the input indexes, directly or through what leaves values as they are."""
    carriers = index_carriers(graph, name)
    found = [
        rows[node.input[0]]
        for node in graph.node
        if node.op_type == "Gather"
        and node.input[1] in carriers
        and node.input[0] in rows
        and attribute_of(node, "axis", 0) == 0
    ]
    return min(found, default=None)


def _shapes(
    inputs: list[TensorFace], wanted: dict[str, list[int]], size: int, batch: int
) -> dict[str, tuple[int, ...]]:
    """Of every input. What an axis of a name is given in `wanted` holds for all of that name."""
    named: dict[str, int] = {}
    for face in inputs:
        given = zip(face.shape or (), wanted.get(face.name, ()), strict=False)
        named |= {axis: length for axis, length in given if isinstance(axis, str)}
    for face in inputs:
        for position, axis in enumerate(face.shape or ()):
            if not isinstance(axis, str) or axis in named:
                continue
            if is_batch(axis, inputs):
                named[axis] = batch
            elif position:  # what stands first and is no batch stands elsewhere too, where more is known of it
                named[axis] = _usual(face.shape or (), position, size, batch)
    return {face.name: _shape(face, wanted, named, size, batch) for face in inputs}


def is_batch(name: str, inputs: list[TensorFace]) -> bool:
    """Whether it is the first axis of an input, and of all that have it the first open one: `N` of a state (2, N, 4).

    Not what a matrix between nodes has twice, nor a length that stands behind another axis in another input.
    """
    shapes = [face.shape for face in inputs if face.shape is not None and name in face.shape]
    left_open = [[axis for axis in shape if not isinstance(axis, int)] for shape in shapes]
    first = all(axes[0] == name and axes.count(name) == 1 for axes in left_open)
    return first and any(shape[0] == name for shape in shapes)


def _shape(
    face: TensorFace, wanted: dict[str, list[int]], named: dict[str, int], size: int, batch: int
) -> tuple[int, ...]:
    if face.name in wanted:
        return tuple(wanted[face.name])
    shape = face.shape or ()
    sizes = [named[axis] if isinstance(axis, str) else axis for axis in shape]
    return tuple(_usual(shape, place, size, batch) if known is None else known for place, known in enumerate(sizes))


def _usual(shape: tuple[Dimension, ...], position: int, size: int, batch: int) -> int:
    """Of an open axis at this position; `size` 0 stands for what is usual for an input of this rank."""
    if position == 0:
        return batch
    if len(shape) != IMAGE_RANK:
        return size or SEQUENCE_LENGTH
    last = shape[-1]
    channels_last = isinstance(last, int) and last <= MOST_CHANNELS
    if position == 1 and not channels_last:
        return CHANNELS
    return size or IMAGE_SIDE


def _fill(face: TensorFace, fill: Fill | None, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if face.dtype == "string":
        return np.full(shape, "a", dtype="<U1")
    if fill is not None:
        return generator.integers(fill.low, fill.high, size=shape).astype(face.dtype)
    values = generator.standard_normal(math.prod(shape)).reshape(shape)
    return values.astype(face.dtype)
