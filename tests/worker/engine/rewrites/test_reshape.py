"""A Reshape whose target is computed, though all its axes but one are known, gets it as a constant."""

import numpy as np
import onnx
import pytest

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import prepared
from worker.engine.rewrites.reshape import fix_reshape_targets

# What exporters write for x.reshape(x.shape[0], x.shape[1], 2, 3): sizes that come out of Shape and go into Concat.
COMPUTED = """network (float[2,5,6] x) => (float[2,5,2,3] y) {{
    head = Shape<end = 2>(x)
    target = Concat<axis = 0>(head, tail)
    parts = Reshape{attributes}(x, target)
    y = Neg(parts)
}}"""
TAIL = np.array([2, 3], np.int64)


def _inferred(text: str) -> onnx.ModelProto:
    """With the shape of `parts` known."""
    model = prepared(text, tail=TAIL)
    del model.graph.value_info[:]
    shape = onnx.helper.make_tensor_value_info("parts", onnx.TensorProto.FLOAT, [2, 5, 2, 3])
    model.graph.value_info.append(shape)
    return model


def test_a_computed_target_becomes_a_constant() -> None:
    found = apply(fix_reshape_targets, _inferred(COMPUTED.format(attributes="")))
    assert found.count == 1
    target = next(node for node in found.model.graph.node if node.op_type == "Reshape").input[1]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    assert constants[target].tolist() == [2, 5, 2, 3]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [(["batch", 5, 2, 3], [-1, 5, 2, 3]), ([2, 5, None, 3], [2, 5, -1, 3]), (["batch", "tokens", 2, 3], None)],
    ids=["batch", "not-named", "two-unknown"],
)
def test_one_axis_may_be_unknown(axes: list[str | int | None], expected: list[int] | None) -> None:
    model = prepared(COMPUTED.format(attributes=""), tail=TAIL)
    del model.graph.value_info[:]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("parts", onnx.TensorProto.FLOAT, axes))
    found = apply(fix_reshape_targets, model)
    assert found.count == (expected is not None)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in found.model.graph.initializer}
    target = next(node for node in found.model.graph.node if node.op_type == "Reshape").input[1]
    assert constants.get(target) == expected


def test_zeros_that_mean_zero_are_left_alone() -> None:
    text = COMPUTED.format(attributes="<allowzero = 1>")
    assert apply(fix_reshape_targets, _inferred(text)).count == 0


def test_what_is_declared_of_an_output_is_not_believed() -> None:
    """An exporter writes down the batch that it traced with, and any other would no longer fit."""
    text = COMPUTED.format(attributes="").replace("parts = Reshape", "y = Reshape").replace("    y = Neg(parts)\n", "")
    assert apply(fix_reshape_targets, prepared(text, tail=TAIL)).count == 0
