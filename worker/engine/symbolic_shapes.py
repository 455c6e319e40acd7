"""Shapes with names for axes of unknown size, and none that is a guess.

ONNX Runtime's inference takes two axes that meet in a sum for equal, or gives the graph up. But a call may have 1 in
either of them, and the runtime lets tensors share memory whose shapes a file says are the same. Here such an axis gets
a name of its own.
"""

from typing import Any

import onnx

# Through `onnxruntime.tools` the same class would import torch where that is installed: seconds, and 200 MiB.
from onnxruntime.transformers.shape_infer_helper import SymbolicShapeInference

from worker.engine.graph import attribute_of

UNBOUNDED = 2**31 - 1
Axis = int | str | None


class IncompleteShapes(ValueError):
    """There is an operator that nothing is known of."""


def infer_symbolic(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the type and shape of every tensor; axes of inputs and outputs are named in it as well.

    Raises:
        IncompleteShapes: of some tensor not even the rank can be known.

    """
    inference = _Inference(UNBOUNDED, auto_merge=False, guess_output_rank=False, verbose=0)
    inference._preprocess(model)
    if not inference._infer_impl():
        raise IncompleteShapes("an operator whose results it does not know")
    inference._update_output_from_vi()
    made: onnx.ModelProto = inference.out_mp_
    return made


class _Inference(SymbolicShapeInference):  # type: ignore[misc]  # the class is untyped
    def _add_suggested_merge(self, symbols: object, apply: bool = False) -> None:
        """Called with axes that the runtime would take for equal."""

    def _onnx_infer_single_node(self, node: onnx.NodeProto) -> None:
        super()._onnx_infer_single_node(node)
        for position, name in enumerate(node.output):
            tensor = self.known_vi_[name].type.tensor_type if name else onnx.TypeProto.Tensor()
            for axis, dimension in enumerate(tensor.shape.dim):
                if not dimension.HasField("dim_value") and dimension.dim_param not in self.symbolic_dims_:
                    dimension.dim_param = str(self._new_symbolic_dim_from_output(node, position, axis))

    def _infer_SplitToSequence(self, node: onnx.NodeProto) -> None:  # noqa: N802  # the helper finds it by this name
        """The helper's own calls what onnx has no longer, and takes one size of all parts for a size of each."""
        shape: list[Axis] = list(self._get_shape(node, 0))
        axis = attribute_of(node, "axis", 0) % len(shape)
        is_sized = len(node.input) > 1 and node.input[1]
        single: list[Axis] = [1] if attribute_of(node, "keepdims", 1) else []
        shape[axis : axis + 1] = [None] if is_sized else single
        element = self.known_vi_[node.input[0]].type.tensor_type.elem_type
        (name,) = node.output
        self.known_vi_[name].CopyFrom(onnx.helper.make_tensor_sequence_value_info(name, element, shape))

    def _broadcast_shapes(self, left: list[Any], right: list[Any]) -> list[Axis]:
        rank = max(len(left), len(right))
        padded = [[1] * (rank - len(shape)) + list(shape) for shape in (left, right)]
        return [self._broadcast(*pair) for pair in zip(*padded, strict=True)]

    def _broadcast(self, left: Axis, right: Axis) -> Axis:
        if left == 1 or (left == right and left is not None):
            return right
        if right == 1:
            return left
        numbers = [axis for axis in (left, right) if isinstance(axis, int)]
        return numbers[0] if numbers else self._new_axis()

    def _new_axis(self) -> Axis:
        """One that no axis of the file is called."""
        number = len(self.symbolic_dims_)
        while f"broadcast_d{number}" in self.symbolic_dims_:
            number += 1
        return str(self._new_symbolic_dim("broadcast", number))

    def _merge_symbols(self, dims: list[Axis]) -> Axis:
        """Of axes that have to be equal: those beside the axis of a Concat."""
        return next((axis for axis in dims if isinstance(axis, int)), dims[0])
