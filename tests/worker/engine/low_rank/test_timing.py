"""Kernels are found for every node that multiplies, whatever the runtime fuses with it and names it by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.graph_file import read_graph
from worker.engine.low_rank.factoring import factor
from worker.engine.low_rank.forms import Form, shape_of
from worker.engine.low_rank.places import OPERATORS, find_places
from worker.engine.low_rank.plan import Plan
from worker.engine.low_rank.timing import factor_times, place_times
from worker.engine.model_file import ModelFile
from worker.engine.profiling import profile

TEXT = """network (float[N,16,64,64] x) => (float[N,40] y) {
    c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b) n1 = BatchNormalization(c1, s, b, m, v) r1 = Relu(n1)
    c2 = Conv<pads = [1, 1, 1, 1]>(r1, w2) n2 = BatchNormalization(c2, s, b, m, v)
    c3 = Conv<pads = [1, 1, 1, 1]>(r1, w3) a = Add(n2, c3) r2 = Relu(a)
    c4 = Conv(r2, w4) g4 = Sigmoid(c4) h4 = Mul(c4, g4)
    p = ReduceMean<axes = [2, 3], keepdims = 0>(h4)
    q = MatMul(p, w5) t = Add(q, b5) r5 = Relu(t)
    y = Gemm<transB = 1>(r5, w6, b6)
}"""
CONSTANTS = {
    **{f"w{number}": normal(16, 16, 3, 3, seed=number) for number in (1, 2, 3, 4)},
    **{name: normal(16, seed=number) for number, name in enumerate("sbm")},
    "v": np.ones(16, np.float32),
    # Wide enough to take microseconds.
    "w5": normal(16, 4096),
    "b5": normal(4096),
    "w6": normal(40, 4096),
    "b6": normal(40),
}


def test_every_product_and_all_of_its_factors_have_a_time(
    saved: Callable[..., ModelFile], context: SamplesContext, tmp_path: Path
) -> None:
    model = prepared(TEXT, **CONSTANTS)
    file = saved(model)
    given = context(model, x=normal(4, 16, 64, 64))
    places = find_places(read_graph(file), OPERATORS, ()).places
    assert len(places) == 6
    times = profile(file, given.timed_feed(), 1, tmp_path, 0.5, "cpu")
    assert place_times(places, times).keys() == {place.name for place in places}

    forms: list[tuple[Form, tuple[int, ...]]] = [("channels", (8,)), ("spatial", (8,)), ("tucker", (8, 8))]
    forms += [("channels", (4,)), ("matrix", (8,)), ("matrix", (8,))]
    shapes = {place.name: shape_of(place, *form) for place, form in zip(places, forms, strict=True)}
    made = Plan(file, {place.name: factor(place, [shapes[place.name]], None) for place in places})
    factored = made.write(shapes, tmp_path / "factored")
    found = factor_times(factored, shapes, profile(factored, given.timed_feed(), 1, tmp_path, 0.5, "cpu"))
    assert all(found[name] > 0 for name in shapes)
