"""What exporters merge because it is equal is parted; what somebody tied stays tied; nothing else in the file moves."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import ModelProto, numpy_helper

from tests.worker import networks
from tests.worker.engine.trainable.exported import NETWORKS, Network
from tests.worker.networks import holding
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session
from worker.engine.trainable.importing import import_model
from worker.engine.trainable.parting import merged, part
from worker.engine.trainable.write_back import write_back

ONES, ZEROS = np.ones(4, np.float32), np.zeros(4, np.float32)
SQUARE, TABLE = networks.normal(4, 4), networks.normal(9, 4)
FACE = "g (float[N,4] x) => (float[N,4] y) "
TWO = "g (float[N,4] x, float[N,4] z) => (float[N,4] y) "
TWO_LAYERS = FACE + "{ a = Gemm(x, w, b) y = Gemm(a, v, b) }"
BOTH = TWO + "{ a = MatMul(x, w) c = Add(a, b) d = MatMul(z, w) e = Add(d, b) y = Mul(c, e) }"


# How many constants each becomes, beside itself.
RULES = [
    pytest.param(holding(TWO_LAYERS, w=SQUARE, v=SQUARE + 1, b=ZEROS), {"b": 1}, id="biases-of-two-layers"),
    pytest.param(holding(TWO_LAYERS, w=SQUARE, v=SQUARE + 1, b=SQUARE[0]), {}, id="a-bias-that-is-no-constant-is-tied"),
    pytest.param(
        holding(FACE + "{ y = BatchNormalization(x, s, b, b, s) }", s=ONES, b=ZEROS),
        {"s": 1, "b": 1},
        id="a-scale-and-its-own-variance",
    ),
    pytest.param(
        holding(FACE + "{ a = LayerNormalization(x, s, b) c = LayerNormalization(x, s, b) y = Add(a, c) }",
              s=ONES, b=ZEROS),
        {"s": 1, "b": 1},
        id="two-layers-that-are-fed-the-same",
    ),
    pytest.param(holding(BOTH, w=SQUARE, b=ZEROS), {}, id="one-layer-applied-twice-by-its-weight"),
    pytest.param(
        holding(
            TWO + """{ a = MatMul(x, w) c = Relu(a) e = LayerNormalization(c, s, b)
                       d = MatMul(z, w) f = Relu(d) h = LayerNormalization(f, s, b) y = Mul(e, h) }""",
            w=SQUARE, s=ONES, b=ZEROS,
        ),
        {},
        id="one-layer-applied-twice-by-what-stands-before",
    ),
    pytest.param(
        holding(FACE + "{ a = Gemm(x, w, b) c = Sub(a, b) y = Relu(c) }", w=SQUARE, b=ZEROS),
        {"b": 1},
        id="a-formula-keeps-the-constant",
    ),
    pytest.param(
        holding(FACE + "{ i = Identity(b) a = Gemm(x, w, b) y = Gemm(a, v, i) }", w=SQUARE, v=SQUARE + 1, b=ZEROS),
        {"b": 1},
        id="an-identity-stands-for-a-tensor",
    ),
    pytest.param(
        holding("g (int64[N] i) => (float[N,9] y) { x = Gather(e, i) t = Transpose<perm=[1,0]>(e) y = MatMul(x, t) }",
              e=TABLE),
        {},
        id="an-embedding-tied-to-the-output",
    ),
    pytest.param(
        holding(FACE + "{ a = MatMul(x, w) y = MatMul(a, w) }", w=np.ones((4, 4), np.float32)),
        {},
        id="a-matrix-stays-tied-even-if-it-is-all-ones",
    ),
    pytest.param(
        holding(FACE + "{ a = Mul(x, half) y = Mul(a, half) }", half=np.float32(0.5).reshape(())), {},
        id="a-factor-is-none",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "wanted"), RULES)
def test_a_constant_is_parted_where_nobody_has_tied_it(model: ModelProto, wanted: dict[str, int]) -> None:
    found = merged(ir.serde.deserialize_model(model).graph)
    assert {name: len(shares) for name, shares in found.items()} == wanted


def test_an_input_with_a_default_stays_whole() -> None:
    model = networks.with_initializers_as_inputs(holding(TWO_LAYERS, w=SQUARE, v=SQUARE + 1, b=ZEROS))
    assert merged(ir.serde.deserialize_model(model).graph) == {}


@pytest.mark.parametrize("beside", [None, "weights.bin"], ids=["in-the-file", "external-data"])
def test_the_rest_of_the_file_stays(beside: str | None, tmp_path: Path) -> None:
    text = FACE + "{ i = Identity(b) a = Gemm(x, w, b) c = Gemm(a, v, i) y = Gemm(c, u, b) }"
    model = holding(text, w=SQUARE, v=SQUARE + 1, u=SQUARE + 2, b=ZEROS)
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    file = ModelFile(networks.save(model, tmp_path / "model", beside))
    parted = part(file, set(), tmp_path / "parted")
    assert parted.origins == {"i": "b", "n3/input_2": "b"}
    before, after = file.structure().graph, parted.model.structure().graph
    assert list(after.initializer)[: len(before.initializer)] == list(before.initializer)
    assert [list(node.input) for node in after.node] == [["x", "w", "b"], ["a", "v", "i"], ["c", "u", "n3/input_2"]]
    onnx.checker.check_model(str(parted.model.path), full_check=True)
    # Copies lie in the same bytes beside the file, and part when they are written.
    state = import_model(parted.model).state()
    made = write_back(parted.model, {**state, "i": torch.full((4,), 3.0)}, tmp_path / "made")
    values = {one.name: numpy_helper.to_array(one) for one in made.load().graph.initializer}
    assert (values["b"] == 0).all()
    assert (values["n3/input_2"] == 0).all()
    assert (values["i"] == 3).all()


def test_what_is_asked_to_stay_whole_does(tmp_path: Path) -> None:
    file = ModelFile(networks.save(holding(TWO_LAYERS, w=SQUARE, v=SQUARE + 1, b=ZEROS), tmp_path / "model"))
    assert part(file, {"b"}, tmp_path / "parted").model == file


# The new exporter folds a normalization into the convolution before it, and leaves a bias of zeros out.
UNTRAINED = [
    pytest.param(
        network,
        exporter,
        id=f"{network}-{exporter}",
        marks=[pytest.mark.long] if exporter == "new" else [],  # it takes seconds of each
    )
    for network in NETWORKS
    for exporter in ("old", "new")
    if network.name in ("vit", "bert") or (network.name, exporter) == ("residual-cnn", "old")
]


@pytest.mark.parametrize(("network", "exporter"), UNTRAINED)
def test_an_export_that_was_never_trained_has_every_tensor(network: Network, exporter: str, tmp_path: Path) -> None:
    """As many as the same network has whose tensors differ."""
    file = network.export(tmp_path / "untrained", exporter, untrained=True)
    parted = part(file, set(), tmp_path / "parted").model
    module = import_model(parted)
    other = import_model(network.export(tmp_path / "different", exporter))
    assert sorted(map(tuple, _shapes(module))) == sorted(map(tuple, _shapes(other)))
    feed = {name: tensor.numpy() for name, tensor in network.feed(2).items()}
    first, second = (run_session(open_session(one.path, 1), feed, ["y"])[0] for one in (file, parted))
    assert np.array_equal(first, second)


def _shapes(module: torch.nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in module.state().values()]
