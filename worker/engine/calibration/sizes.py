"""How large tensors are, as far as the shapes of what is fed tell."""

import math

import onnx

from worker.engine.graph import face_of, inputs_of
from worker.engine.sessions import Feed


class Sizes:
    """Of those of `tensors` (element type by name) whose every dimension is a number or has the name of an input's.

    A 0 is no number here: of what is not fed it is a note that nobody holds to, and some exporters mean an open axis.
    """

    def __init__(self, model: onnx.ModelProto, tensors: dict[str, int]) -> None:
        self._axes = {
            dimension: (face.name, axis)
            for face in inputs_of(model)
            for axis, dimension in enumerate(face.shape or ())
            if isinstance(dimension, str)
        }
        self._numbers, self._symbols = dict[str, int](), dict[str, list[str]]()
        graph = model.graph
        for value in [*graph.value_info, *graph.output, *graph.input]:
            shape = face_of(value).shape if value.name in tensors else None
            symbols = [one for one in shape or () if isinstance(one, str)]
            if shape is not None and all(shape) and all(one in self._axes for one in symbols):
                self._numbers[value.name] = math.prod(one for one in shape if isinstance(one, int))
                self._symbols[value.name] = symbols

    def __contains__(self, tensor: object) -> bool:
        return tensor in self._numbers

    def of(self, feed: Feed) -> dict[str, int]:
        """Elements by name, in a call with this feed."""
        fed = {symbol: feed[name].shape[axis] for symbol, (name, axis) in self._axes.items()}
        return {
            name: math.prod((fed[one] for one in self._symbols[name]), start=number)
            for name, number in self._numbers.items()
        }
