"""What a Constant node holds is an initializer by the same name; one that is an output stays a node."""

import onnx

from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import prepared
from worker.engine.rewrites.constant_nodes import lift_constants


def test_constant_nodes_become_initializers() -> None:
    text = """network (float[2,3] x) => (float[2,3] y, float[3] k) {
        a = Constant<value = float[3] {1, 2, 3}>() b = Constant<value_float = 2.0>()
        k = Constant<value_floats = [4.0, 5.0, 6.0]>() p = Mul(x, a) q = Add(p, b) y = Sub(q, k)
    }"""
    found = apply(lift_constants, prepared(text))
    assert found.count == 2
    assert found.operators == {"Constant": 1, "Mul": 1, "Add": 1, "Sub": 1}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in found.model.graph.initializer}
    assert held == {"a": [1, 2, 3], "b": 2}
