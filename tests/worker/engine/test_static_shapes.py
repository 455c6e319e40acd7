"""Products exported for one shape: of those over three axes the runtime makes Gemm, between shapes that it names.

In the file that it writes it may find more of them, as in exported text encoders; it counts names from the first
again then, and refuses a graph that has them already.
"""

from pathlib import Path

import numpy as np

from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.graph import nodes_of
from worker.engine.model_file import ModelFile
from worker.engine.preparation import prepare
from worker.engine.sessions import open_session, run_session

FEED_FORWARD = (
    "network (float[2,4,8] x) => (float[2,4,8] y)"
    "{ h = MatMul(x, w1) hb = Add(h, b1) r = Relu(hb) o = MatMul(r, w2) y = Add(o, b2) }"
)


def test_products_of_a_fixed_shape_are_folded(tmp_path: Path) -> None:
    shapes = {"w1": (8, 16), "b1": (16,), "w2": (16, 8), "b2": (8,)}
    weights = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    model = ModelFile(networks.save(networks.holding(FEED_FORWARD, **weights), tmp_path / "model"))
    feed = {"x": normal(2, 4, 8)}
    made = prepare(model, feed, tmp_path / "scratch", threads=1)
    assert not [note for note in made.notes if note.startswith("Left out")], made.notes
    operators = [node.op_type for node in nodes_of(made.model.structure().graph)]
    assert operators.count("Gemm") == 2, operators
    made_names = {tensor.name for tensor in made.model.structure().graph.initializer} - weights.keys()
    assert made_names
    assert not [name for name in made_names if name.startswith("gemm_")], "the runtime would give these names again"
    before, after = (run_session(open_session(path, 1), feed) for path in (model.path, made.model.path))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=1e-6)
