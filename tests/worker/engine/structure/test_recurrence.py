"""Hidden units of recurrent layers: what goes with each, and that a network without some does not read them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.worker import networks
from tests.worker.engine.structure.masking import cut_and_checked, feed_of, saved, structure_of
from tests.worker.networks import normal
from worker.engine.structure.propagation import COUNTED, RESULT
from worker.engine.structure.wiring import FIXED

IN, HIDDEN, OUT = 5, 8, 3
SERIES = f"float[T,N,{IN}] x"
SCORES = f"float[N,{OUT}] y"
HEAD = "last = Squeeze(h, first) y = Gemm<transB=1>(last, c)"


@dataclass
class Case:
    id: str
    model: onnx.ModelProto
    groups: list[tuple[str, str, int]]
    """By group: its producers and its consumers by the names of their weights, and its units."""
    reasons: set[str] = field(default_factory=lambda: {RESULT})


def _net(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    return networks.prepared(text, 17, c=normal(OUT, HIDDEN), first=np.array([0], np.int64), **constants)


def _layer(name: str, gates: int, inputs: int = IN, directions: int = 1) -> dict[str, np.ndarray]:
    """Its weights, those of the recurrence and its biases."""
    return {
        f"{name}w": normal(directions, gates * HIDDEN, inputs, seed=1),
        f"{name}r": normal(directions, gates * HIDDEN, HIDDEN, seed=2),
        f"{name}b": normal(directions, 2 * gates * HIDDEN, seed=3),
    }


ZEROS = (
    "s = Shape(x) i = Constant<value = int64[1] {1}>() n = Gather(s, i) one = Constant<value = int64[1] {1}>()"
    " width = Constant<value = int64[1] {8}>() t = Concat<axis=0>(one, n, width)"
    " zero = ConstantOfShape<value = float[1] {0.0}>(t)"
)

CASES = [
    Case(
        "two-lstms-as-exporters-write-them",
        _net(
            f"g ({SERIES}) => ({SCORES}) {{ {ZEROS} a, ah, ac = LSTM<hidden_size=8>(x, uw, ur, ub, , zero, zero)"
            f" q = Squeeze(a, i) b, h, bc = LSTM<hidden_size=8>(q, vw, vr, vb, , zero, zero) {HEAD} }}",
            **_layer("u", 4),
            **_layer("v", 4, HIDDEN),
        ),
        [("uw ur", "ur vw", HIDDEN), ("vw vr", "vr c", HIDDEN)],
    ),
    Case(
        "peepholes-and-states-that-are-no-zeros",
        _net(
            f"g (float[T,2,{IN}] x) => (float[2,{OUT}] y)"
            f" {{ a, h, cell = LSTM<hidden_size=8>(x, uw, ur, ub, , state, state, peep) {HEAD} }}",
            state=normal(1, 2, HIDDEN, seed=7),
            peep=normal(1, 3 * HIDDEN, seed=8),
            **_layer("u", 4),
        ),
        [("uw ur", "ur c", HIDDEN)],
    ),
    Case(
        "zeros-to-begin-with-that-are-listed-as-an-input",
        networks.with_initializers_as_inputs(
            _net(
                f"g (float[T,2,{IN}] x) => (float[2,{OUT}] y)"
                f" {{ a, h, cell = LSTM<hidden_size=8>(x, uw, ur, ub, , zero, zero) {HEAD} }}",
                zero=np.zeros((1, 2, HIDDEN), np.float32),
                **_layer("u", 4),
            )
        ),
        [("uw ur", "ur c", HIDDEN)],
    ),
    Case(
        "gru-in-both-directions",
        networks.prepared(
            f'g ({SERIES}) => (float[T,N,{OUT}] y) {{ a = GRU<hidden_size=8, direction="bidirectional">(x, uw, ur, ub)'
            " b = Transpose<perm=[0,2,1,3]>(a) d = Reshape(b, join) y = MatMul(d, c) }",
            17,
            c=normal(2 * HIDDEN, OUT),
            join=np.array([0, 0, -1], np.int64),
            **_layer("u", 3, directions=2),
        ),
        [("uw ur", "ur c", HIDDEN)],
    ),
    Case(
        "plain-recurrence-behind-a-product",
        _net(
            f"g ({SERIES}) => ({SCORES}) {{ e = MatMul(x, m) a, h = RNN<hidden_size=8>(e, uw, ur, ub) {HEAD} }}",
            m=normal(IN, 6),
            **_layer("u", 1, 6),
        ),
        [("m", "uw", 6), ("uw ur", "ur c", HIDDEN)],
    ),
    Case(
        "both-directions-side-by-side-by-sizes-that-are-multiplied",
        _net(
            f'g ({SERIES}) => ({SCORES}) {{ a = LSTM<hidden_size=8, direction="bidirectional">(x, uw, ur, ub)'
            " t = Transpose<perm=[0, 2, 1, 3]>(a) s = Shape(t) front = Slice(s, zero, two) d = Gather(s, two)"
            " e = Gather(s, three) w = Mul(d, e) z = Concat<axis=0>(front, w) r = Reshape(t, z)"
            " last = ReduceMean<axes=[0], keepdims=0>(r) y = Gemm<transB=1>(last, k) }",
            **_layer("u", 4, directions=2),
            k=normal(OUT, 2 * HIDDEN, seed=4),
            zero=np.array([0], np.int64),
            two=np.array([2], np.int64),
            three=np.array([3], np.int64),
        ),
        [("uw ur", "ur k", HIDDEN)],
    ),
    Case(
        "a-width-that-is-computed-with-otherwise",
        _net(
            f"g ({SERIES}) => ({SCORES}) {{ a, h = RNN<hidden_size=8>(x, uw, ur, ub) s = Shape(h) w = Gather(s, two)"
            " v = Cast<to=1>(w) u = Mul(v, half) l = Squeeze(h, first) last = Div(l, u) y = Gemm<transB=1>(last, c) }",
            **_layer("u", 1),
            two=np.array([2], np.int64),
            half=np.array([0.5], np.float32),
        ),
        [],
        {COUNTED, RESULT},
    ),
    Case(
        "a-state-that-the-caller-gives",
        _net(
            f"g ({SERIES}, float[1,N,8] state) => ({SCORES})"
            f" {{ a, h = GRU<hidden_size=8>(x, uw, ur, ub, , state) {HEAD} }}",
            **_layer("u", 3),
        ),
        [],
        {FIXED, RESULT},
    ),
    Case(
        "a-state-that-the-caller-gets",
        _net(
            f"g ({SERIES}) => (float[1,N,8] h, {SCORES}) {{ a, h = GRU<hidden_size=8>(x, uw, ur, ub) {HEAD} }}",
            **_layer("u", 3),
        ),
        [],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_hidden_units_go_with_their_gates_and_with_what_reads_them(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    structure = structure_of(model, feed_of(model), tmp_path / "sizes")

    def weights(parts: list) -> str:
        return " ".join(part.slot.weight.name for part in parts)

    assert [(weights(one.producers), weights(one.consumers), one.width) for one in structure.groups] == case.groups
    assert all(group.run == 1 for group in structure.groups)
    assert set(structure.reasons.values()) == case.reasons


@pytest.mark.parametrize("case", [case for case in CASES if case.groups], ids=lambda case: case.id)
def test_a_recurrence_that_is_cut_is_one_that_is_not_read(case: Case, tmp_path: Path) -> None:
    model = saved(case.model, tmp_path / "model")
    made = cut_and_checked(model, tmp_path)
    assert made.size_bytes() < 0.75 * model.size_bytes()
