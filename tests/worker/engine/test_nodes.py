"""Who asks for a constant, and in which way."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.worker import networks
from worker.engine.nodes import constant, constant_names, constant_tensor, float32_constant, sources_of

TWO = np.full(1, 2, np.float32)


def _graph() -> ir.Graph:
    """Constants in every way that a file may hold them; `given` can be overridden by a caller."""
    model = networks.prepared(
        """g (float[1] x, float[1] given) => (float[1] y) {
            node = Constant<value = float[1] {2}>()
            number = Constant<value_float = 2.0>()
            integers = Constant<value_ints = [2]>()
            moved = Identity(node)
            y = Sum(x, given, kept, moved, number)
        }""",
        given=TWO,
        kept=TWO,
    )
    return ir.from_proto(model).graph


@pytest.mark.parametrize(
    ("name", "folds", "holds", "converts"),
    [
        ("kept", True, True, True),
        ("given", False, True, False),
        ("node", False, True, True),
        ("number", False, False, True),
        ("integers", False, False, False),
        ("moved", False, False, False),
        ("x", False, False, False),
    ],
)
def test_each_question_has_an_answer_of_its_own(name: str, folds: bool, holds: bool, converts: bool) -> None:
    graph = _graph()
    values = {value.name: value for node in graph for value in [*node.inputs, *node.outputs] if value is not None}
    value = values[name]
    assert (constant(value) is not None) is folds
    assert (constant_tensor(value) is not None) is holds
    assert (float32_constant(value) is not None) is converts
    assert (name in constant_names(graph)) is (name not in {"moved", "x"})
    assert [source.name for source in sources_of(value)] == {"moved": ["node"]}.get(name, [name] if holds else [])
