"""What can be taken out of a network together, what has to stay and why; and that cutting it is leaving it unread."""

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.engine.structure.cases import GOING, IMAGE, LAST, LOGITS, A, C, Case, M, P, integers, net
from tests.worker.engine.structure.masking import cut_and_checked, feed_of, saved, structure_of
from tests.worker.networks import normal
from worker.engine.structure import account
from worker.engine.structure.carrying import PICKED
from worker.engine.structure.cutting import cut
from worker.engine.structure.groups import NOT_READ, find_structure
from worker.engine.structure.propagation import CAPTURED, COUNTED, RESULT, read_graph
from worker.engine.structure.removal import Rest
from worker.engine.structure.selection import Choice, Macs
from worker.engine.structure.sizes import measured_sizes
from worker.engine.structure.wiring import FIXED, MIXED

STAYING = [
    Case(
        "shifted-by-a-pad",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads) y = Conv(q, c) }}",
            a=A, c=C, pads=integers(0, 1, 0, 0, 0, -1, 0, 0),
        ),
        [], {"a": MIXED, **LAST},
    ),
    Case(
        "padded-by-numbers-that-callers-give",
        net(
            f"g ({IMAGE}, int64[8] pads) => ({LOGITS}) {{ h = Conv(x, a) q = Pad(h, pads) y = Conv(q, c) }}",
            a=A, c=C,
        ),
        [], {"a": MIXED, **LAST},
    ),
    Case(
        "layer-norm",
        net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) r = LayerNormalization(h, s) y = MatMul(r, p) }",
            m=M, s=normal(8), p=P,
        ),
        [], {"m": MIXED, "p": RESULT},
    ),
    Case(
        "softmax-along-it",
        net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) r = Softmax(h) y = MatMul(r, p) }", m=M, p=P),
        [], {"m": MIXED, "p": RESULT},
    ),
    Case(
        "read-by-an-operator-that-is-not-known",
        net(
            "g (float[N,3,6,6] x) => (float[N,4,4,4] y) { h = Conv(x, a) k = LRN<size=3>(h) y = ConvTranspose(k, d) }",
            a=A, d=normal(8, 4, 1, 1),
        ),
        [], {"a": "operator LRN reads it", "d": RESULT},
    ),
    Case(
        "group-norm-with-a-scale-a-group",
        net(
            f"g ({IMAGE}) => ({LOGITS}) {{ h = Conv(x, a) n = GroupNormalization<num_groups=4>(h, s, t)"
            " y = Conv(n, c) }",
            opset=18, a=A, c=C, s=normal(4), t=normal(4),
        ),
        [], {"a": "operator GroupNormalization reads it", **LAST},
    ),
    Case("recurrent", networks.recurrent(), [], {"R": RESULT}),
    Case(
        "read-in-a-sum-with-the-input",
        net("g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, m) s = Add(h, x) y = MatMul(s, p) }",
             m=normal(8, 8), p=P),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "picked-by-number",
        net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) k = Gather<axis=1>(h, i) y = MatMul(k, p) }",
             m=M, p=normal(3, 4), i=integers(1, 2, 5)),
        [], {"m": PICKED, "p": RESULT},
    ),
    Case(
        "summed-up",
        net("g (float[N,6] x) => (float[N,1] y) { h = MatMul(x, m) y = ReduceMean<axes=[1]>(h) }", m=M),
        [], {"m": MIXED},
    ),
    Case(
        "read-by-nobody",
        net("g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) y = MatMul(x, p) }", m=M, p=normal(6, 4)),
        [], {"m": NOT_READ, "p": RESULT},
    ),
    Case(
        "its-size-computed-with",
        net(
            "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, m) s = Shape(h) f = Cast<to=1>(s) l = ReduceMax(f)"
            " d = Div(h, l) y = MatMul(d, p) }",
            m=M, p=P,
        ),
        [], {"m": COUNTED, "p": RESULT},
    ),
    Case(
        "multiplied-by-its-sizes",
        net(
            "g (float[N,2] x) => (float[N,4] y) { h = MatMul(x, m) s = Shape(h) f = Cast<to=1>(s) d = Mul(h, f)"
            " y = MatMul(d, p) }",
            m=normal(2, 2), p=normal(2, 4),
        ),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "bias-that-is-no-constant",
        net(
            "g (float[N,8] x) => (float[N,4] y) { h = Gemm(x, m, x) y = MatMul(h, p) }",
            m=normal(8, 8), p=P,
        ),
        [], {"m": FIXED, "p": RESULT},
    ),
    Case(
        "scale-that-callers-give",
        net(
            "g (float[N,3,6,6] x, float[8] s) => (float[N,4,H,W] y) { h = Conv(x, a)"
            " n = BatchNormalization(h, s, t, m, v) y = Conv(n, c) }",
            a=A, t=normal(8), m=normal(8), v=np.ones(8, np.float32), c=C,
        ),
        [], {"a": FIXED, "c": RESULT},
    ),
    Case(
        "read-in-a-branch",
        net(
            "g (float[N,6] x, bool c) => (float[N,4] y) { h = MatMul(x, m)"
            " r = If (c) <then_branch = t () => (float[N,8] u) { u = Relu(h) },"
            " else_branch = e () => (float[N,8] w) { w = Tanh(h) }> y = MatMul(r, p) }",
            m=M, p=P,
        ),
        [], {"m": CAPTURED, "p": RESULT},
    ),
    Case("functions", networks.with_function(), []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("attention-heads", "3 of 4 heads"),
        ("attention-heads-packed", "3 of 4 heads"),
        ("attention-in-one-node", "3 of 4 heads"),
        ("attention-in-one-node-of-heads-side-by-side", "3 of 4 heads"),
        ("a-head-that-nobody-reads", "3 of 4 units of 2 channels"),
        ("grouped-by-groups", "3 of 4 units of 2 channels"),
        ("sliced", "7 of 8 units"),
    ],
)
def test_units_are_counted_as_units(name: str, left: str, tmp_path: Path) -> None:
    """Not by what they hold; and heads are what a Softmax is taken of side by side."""
    model = saved(next(case.model for case in GOING if case.id == name), tmp_path / "model")
    structure = structure_of(model, feed_of(model), tmp_path / "sizes")
    (group,) = structure.groups
    rest = Rest([], model, structure, Macs(model.structure()))
    assert account.widths(rest, Choice({group.name: np.arange(1)}))[1] == f"Left: {group.name} {left}."


def test_what_is_left_of_an_attention_is_counted_as_what_is_cut(tmp_path: Path) -> None:
    """By the numbers of heads that it had: files are cut when they have been chosen."""
    (model,) = (case.model for case in GOING if case.id == "attention-in-one-node-of-heads-side-by-side")
    file = saved(model, tmp_path / "model")
    feed = feed_of(file)
    structure = structure_of(file, feed, tmp_path / "sizes")
    choice = Choice({structure.groups[0].name: np.arange(1)})
    made = cut(file, structure, choice.gone(structure), tmp_path / "cut")
    (attention,) = (node for node in made.structure().graph.node if node.op_type == "Attention")
    assert {one.name: one.i for one in attention.attribute} == {"q_num_heads": 6, "kv_num_heads": 3}
    counted = Macs(made.structure()).of(structure_of(made, feed, tmp_path / "cut-sizes"), Choice({}))
    assert Macs(file.structure()).of(structure, choice) == counted


def test_no_more_is_kept_of_large_activations_than_of_small_ones(tmp_path: Path) -> None:
    """Of a file that declares nothing of what lies between, whose values may then all be sizes."""
    text = "g (float[N,3,H,W] x) => (float[N,4,S,T] y) { h = Conv(x, a) r = Relu(h) y = Conv(r, c) }"
    model = net(text, a=A, c=C)
    del model.graph.value_info[:]
    file, peaks = saved(model, tmp_path / "model"), []
    for side in (8, 256):
        sizes = measured_sizes(file, {"x": normal(1, 3, side, side)}, tmp_path / f"sizes-{side}", threads=1)
        tracemalloc.start()
        find_structure(read_graph(file), sizes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # An element of `h` alone would be 8 bytes in a list: 4 MB.
    assert peaks[1] < peaks[0] + 2**18


def test_what_lies_behind_an_operator_that_inference_does_not_know_is_followed(tmp_path: Path) -> None:
    """Of what that makes the runtime tells what is a tensor; a sequence has no size."""
    text = f"g ({IMAGE}) => ({LOGITS}, float[N,8,4,4] z) {{ h = Conv(x, a) q = com.microsoft.QuickGelu(h)"
    text += " k = Conv(q, b) y = Conv(k, c) s = SequenceConstruct(q, h) z = SequenceAt(s, first) }"
    model = networks.holding(text, a=A, b=normal(8, 8, 1, 1), c=C, first=np.array(0))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    file = saved(model, tmp_path / "model")
    sizes = measured_sizes(file, {"x": normal(2, 3, 6, 6)}, tmp_path / "sizes", threads=1)
    assert (sizes["q"], sizes["k"], sizes["z"]) == ((2, 8, 4, 4), (2, 8, 4, 4), (2, 8, 4, 4))
    assert "s" not in sizes
    structure = find_structure(read_graph(file), sizes)
    assert [[part.slot.weight.name for part in group.producers] for group in structure.groups] == [["b"]]


@pytest.mark.parametrize("case", [*GOING, *STAYING], ids=lambda case: case.id)
def test_groups_are_found(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    structure = structure_of(model, feed_of(model), tmp_path / "sizes")

    def weights(parts: list) -> str:
        return " ".join(part.slot.weight.name for part in parts)

    by_node = {slot.node.name: slot.weight.name for slot in structure.wiring.producers}
    assert [(weights(one.producers), weights(one.consumers), one.width) for one in structure.groups] == case.groups
    assert {by_node[name]: reason for name, reason in structure.reasons.items()} == case.reasons


@pytest.mark.parametrize("case", GOING, ids=lambda case: case.id)
def test_what_is_cut_out_is_what_is_not_read(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    made = cut_and_checked(model, tmp_path)
    assert made.size_bytes() < model.size_bytes()
