"""Which sums close a residual block, what goes with it, and that a file without it answers as if f(x) were nothing."""

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.engine.structure.masking import answers, feed_of, saved
from tests.worker.networks import normal, prepared
from worker.engine.graph import name_nodes
from worker.engine.model_file import ModelFile
from worker.engine.sessions import Feed
from worker.engine.structure.blocks import Blocks
from worker.engine.structure.bypassing import bypass, with_switches
from worker.engine.structure.sizes import measured_sizes

IMAGE, LOGITS = "float[N,8,6,6] x", "float[N,4,6,6] y"
ROWS = "float[N,5,8] x"
FILTERS = {name: normal(8, 8, 3, 3, seed=seed) / 9 for seed, name in enumerate("abcde")} | {"h": normal(4, 8, 1, 1)}
MATRICES = {name: normal(8, 8, seed=seed) / 3 for seed, name in enumerate("qkvoab")}
NORM = {"s": np.ones(8, np.float32), "t": normal(8, seed=9)}
SAME = "Conv<pads = [1, 1, 1, 1]>"


@dataclass
class Case:
    id: str
    text: str
    constants: dict[str, np.ndarray]
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """By block what is read in the stead of what."""


ATTENTION = (
    "{n} = LayerNormalization({x}, s, t) {n}q = MatMul({n}, q) {n}k = MatMul({n}, k) {n}v = MatMul({n}, v) "
    "{n}T = Transpose<perm = [0, 2, 1]>({n}k) {n}S = MatMul({n}q, {n}T) {n}M = {mask} {n}P = Softmax({n}M) "
    "{n}A = MatMul({n}P, {n}v) {n}o = MatMul({n}A, o) {y} = Add({x}, {n}o) "
)
FORWARD = (
    "{n} = LayerNormalization({x}, s, t) {n}a = MatMul({n}, a) {n}r = Relu({n}a) {n}b = MatMul({n}r, b) "
    "{y} = Add({n}b, {x}) "
)


MASKED = "Add({n}S, one)"


def _layer(n: str, x: str, y: str, mask: str = "Identity({n}S)") -> str:
    first = ATTENTION.format(n=f"{n}1", x=x, y=f"{n}h", mask=mask.format(n=f"{n}1"))
    return first + FORWARD.format(n=f"{n}2", x=f"{n}h", y=y)


CASES = [
    Case(
        "basic-block-with-its-activation",
        f"g ({IMAGE}) => ({LOGITS}) {{ i = {SAME}(x, a) u = Relu(i) j = {SAME}(u, b) k = Relu(j) l = {SAME}(k, c)"
        " m = Add(l, u) v = Relu(m) y = Conv(v, h) }",
        FILTERS,
        [("v", "u")],
    ),
    Case(
        "an-activation-that-would-change-what-comes-in",
        f"g ({IMAGE}) => ({LOGITS}) {{ u = {SAME}(x, a) l = {SAME}(u, c) m = Sum(u, l) v = Relu(m) y = Conv(v, h) }}",
        FILTERS,
        [("m", "u")],
    ),
    Case(
        "projection-on-the-shortcut",
        f"g ({IMAGE}) => ({LOGITS}) {{ i = {SAME}(x, a) u = Relu(i) j = {SAME}(u, b) k = {SAME}(u, c)"
        " m = Add(j, k) v = Relu(m) y = Conv(v, h) }",
        FILTERS,
    ),
    Case(
        "inverted-residual",
        f"g ({IMAGE}) => ({LOGITS}) {{ u = {SAME}(x, a) i = Conv(u, w) j = Clip(i, zero, six)"
        " k = Conv<group = 16, pads = [1, 1, 1, 1]>(j, p) l = Conv(k, z) v = Add(u, l) y = Conv(v, h) }",
        FILTERS
        | {"w": normal(16, 8, 1, 1), "p": normal(16, 1, 3, 3), "z": normal(8, 16, 1, 1) / 16}
        | {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)},
        [("v", "u")],
    ),
    Case(
        "one-behind-the-other-and-one-in-the-other",
        f"g ({IMAGE}) => ({LOGITS}) {{ i = {SAME}(x, a) j = Add(x, i) k = {SAME}(j, b) l = Add(k, j)"
        f" m = {SAME}(l, c) n = Add(m, l) o = {SAME}(n, d) p = {SAME}(o, e) r = Add(p, l) y = Conv(r, h) }}",
        FILTERS,
        [("j", "x"), ("l", "j"), ("n", "l"), ("r", "l")],
    ),
    Case(
        "something-else-reads-it",
        f"g ({IMAGE}) => ({LOGITS}, float[N,8,6,6] z) {{ u = {SAME}(x, a) j = {SAME}(u, b) z = Relu(j)"
        " v = Add(u, j) y = Conv(v, h) }",
        FILTERS,
    ),
    Case(
        "a-sum-of-nothing-but-powers",
        "g (float[N,8] x) => (float[N,4] y) { u = MatMul(x, a) j = Mul(u, u) k = Add(u, j) y = MatMul(k, h) }",
        {"a": normal(8, 8), "h": normal(8, 4)},
    ),
    Case(
        "repeated-along-the-batch",
        "g (float[N,8] x) => (float[N,4] y) { u = ReduceMean<axes = [0]>(x) j = Add(x, u) k = MatMul(j, a)"
        " v = Add(u, k) y = MatMul(v, h) }",
        {"a": normal(8, 8), "h": normal(8, 4)},
    ),
    Case(
        "a-result-of-the-model",
        f"g ({IMAGE}) => (float[N,8,6,6] y) {{ u = {SAME}(x, a) l = {SAME}(u, c) y = Add(u, l) }}",
        FILTERS,
        [("y", "u")],
    ),
    Case(
        "transformer-normalized-first",
        f"g ({ROWS}) => (float[N,5,8] y) {{ e = MatMul(x, a) {_layer('f', 'e', 'g')} {_layer('i', 'g', 'z')}"
        " y = LayerNormalization(z, s, t) }",
        MATRICES | NORM,
        [("fh", "e"), ("g", "fh"), ("ih", "g"), ("z", "ih")],
    ),
    Case(
        "transformer-with-a-mask",
        "g (float[N,5,8] x, float[N,5] m) => (float[N,5,8] y) { e = MatMul(x, a) one = Unsqueeze(m, axis)"
        f" {_layer('f', 'e', 'z', MASKED)}"
        " y = LayerNormalization(z, s, t) }",
        MATRICES | NORM | {"axis": np.array([1])},
        [("fh", "e"), ("z", "fh")],
    ),
    Case(
        "transformer-normalized-last",
        f"g ({ROWS}) => (float[N,5,8] y) {{ e = MatMul(x, a) c = MatMul(e, b) d = Relu(c) f = MatMul(d, o)"
        " i = Add(f, e) l = LayerNormalization(i, s, t) m = MatMul(l, q) n = Add(m, l)"
        " y = LayerNormalization(n, s, t) }",
        MATRICES | NORM,
        [("i", "e"), ("n", "l")],
    ),
]


def _blocks(model: ModelFile, folder: Path, *feeds: Feed) -> Blocks:
    proto = model.structure()
    name_nodes(proto)
    given = feeds or [feed_of(model, batch) for batch in (1, 2)]
    sizes = [measured_sizes(model, feed, folder / f"sizes-{number}", 1) for number, feed in enumerate(given)]
    return Blocks(proto.graph, sizes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_blocks_are_found_by_their_sums(case: Case, tmp_path: Path) -> None:
    blocks = _blocks(saved(prepared(case.text, **case.constants), tmp_path / "model"), tmp_path)
    assert [(block.result, block.source) for block in blocks.found] == case.blocks


@pytest.mark.parametrize("case", [case for case in CASES if case.blocks], ids=lambda case: case.id)
def test_a_file_without_blocks_answers_as_one_that_leaves_them_out(case: Case, tmp_path: Path) -> None:
    model = saved(prepared(case.text, **case.constants), tmp_path / "model")
    blocks, feed = _blocks(model, tmp_path), feed_of(model)
    switched, names = with_switches(model, blocks.found, tmp_path / "switched")
    whole = answers(model, feed)
    for number, chosen in enumerate([(), *combinations(blocks.found, 1), *combinations(blocks.found, 2)]):
        made = bypass(model, chosen, tmp_path / f"without-{number}")
        onnx.checker.check_model(made.path, full_check=True)
        left = {node.name for node in made.structure().graph.node}
        assert blocks.gone(chosen) - {block.name for block in chosen} == _names(model) - left - {b.name for b in chosen}
        switches = {name: np.array(block not in chosen) for block, name in names.items()}
        (wanted,), (found,) = answers(switched, feed | switches), answers(made, feed)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert bool(chosen) == (not np.allclose(found, whole[0], rtol=1e-3, atol=1e-3))


def _names(model: ModelFile) -> set[str]:
    return {node.name for node in model.structure().graph.node}


def test_external_data_stays_beside_the_file(tmp_path: Path) -> None:
    case = CASES[0]
    path = networks.save(prepared(case.text, **case.constants), tmp_path / "model", "weights.bin")
    model = ModelFile(path)
    made = bypass(model, _blocks(model, tmp_path).found, tmp_path / "made")
    assert [file.name for file in made.files()] == ["model.onnx", "weights.bin"]
    # Two of four filters of 8 x 8 x 3 x 3 go, and two that nothing read before stay.
    assert made.files()[1].stat().st_size < model.files()[1].stat().st_size


def test_weights_that_are_listed_as_inputs_leave_that_list_with_their_block(tmp_path: Path) -> None:
    case = CASES[0]
    proto = networks.with_initializers_as_inputs(prepared(case.text, **case.constants))
    model = saved(proto, tmp_path / "model")
    made = bypass(model, _blocks(model, tmp_path).found, tmp_path / "made")
    graph = made.structure().graph
    assert {value.name for value in graph.input} == {"x"} | {tensor.name for tensor in graph.initializer}
    assert len(graph.input) < len(proto.graph.input)
    # The runtime would ask for each that is no constant any more.
    assert answers(made, feed_of(model))


def test_what_control_flow_reads_is_read_past_the_block(tmp_path: Path) -> None:
    text = (
        "g (float[N,8] x, bool c) => (float[N,8] y) { r = MatMul(x, first) d = MatMul(r, second) s = Add(r, d) "
        "y = If(c) <then_branch = one () => (float[N,8] o) { o = Identity(s) }, "
        "else_branch = other () => (float[N,8] p) { p = Neg(s) }> }"
    )
    model = saved(prepared(text, first=normal(8, 8), second=normal(8, 8, seed=1)), tmp_path / "model")
    x = normal(2, 8, seed=3)
    (block,) = _blocks(model, tmp_path, {"x": x, "c": np.array(True)}).found
    made = bypass(model, [block], tmp_path / "made")
    onnx.checker.check_model(made.path, full_check=True)
    for chosen, sign in ((True, 1), (False, -1)):
        (found,) = answers(made, {"x": x, "c": np.array(chosen)})
        np.testing.assert_allclose(found, sign * x @ normal(8, 8), rtol=1e-4, atol=1e-5)
