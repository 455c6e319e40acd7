"""What cannot hold NaN is not looked through for it."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.calibration.magnitudes import LARGEST_USUAL, without_nan
from worker.engine.calibration.observing import observe
from worker.engine.calibration.summaries import Summarizer, UnusualValues
from worker.engine.model_file import ModelFile

W = np.ones((4, 4), np.float32)


@dataclass
class Case:
    id: str
    body: str
    found: dict[str, set[str]]
    watched: list[str] = field(default_factory=lambda: ["x", "y"])
    weights: dict[str, np.ndarray] = field(default_factory=lambda: {"w": W})


CASES = [
    Case("a product with weights", "y = MatMul(x, w)", {"y": {"x"}}),
    Case("what stands between and is not watched", "a = MatMul(x, w) y = Relu(a)", {"y": {"x"}}),
    Case("a gate", "a = MatMul(x, w) b = Sigmoid(a) y = Mul(x, b)", {"y": {"x"}}),
    Case(
        "each by what it is made of",
        "a = MatMul(x, w) y = Add(a, x)",
        {"a": {"x"}, "y": {"a", "x"}},
        ["x", "a", "y"],
    ),
    Case("a quotient", "y = Div(x, w)", {}),
    Case("behind one that may be anything", "a = Exp(x) y = MatMul(a, w)", {}),
    Case("behind one that may be anything and is watched", "a = Exp(x) y = MatMul(a, w)", {"y": {"a"}}, ["a", "y"]),
    Case("its source is not watched", "y = MatMul(x, w)", {}, ["y"]),
    # 10^12 three times, and 10^9 terms of either product: more than float32 holds.
    Case("products of products that are not watched", "a = MatMul(x, x) y = MatMul(a, x)", {}),
    Case("weights that are large", "y = MatMul(x, w)", {}, weights={"w": W * 1e30}),
    Case("weights with infinity", "y = MatMul(x, w)", {}, weights={"w": W * np.inf}),
    Case("weights with NaN", "y = MatMul(x, w)", {}, weights={"w": W * np.nan}),
    Case("a slope that is large", "y = HardSigmoid<alpha = 1e20>(x)", {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_is_known_of_what_sums_and_products_make_of_usual_numbers(case: Case) -> None:
    model = networks.prepared(f"network (float[4,4] x) => (float[4,4] y) {{ {case.body} }}", **case.weights)
    found = without_nan(model.graph, dict.fromkeys(case.watched, TensorProto.FLOAT))
    assert {name: set(sources) for name, sources in found.items()} == case.found


def test_it_is_not_known_of_half_precision() -> None:
    model = networks.prepared("network (float16[4,4] x) => (float16[4,4] y) { y = Add(x, x) }")
    assert not without_nan(model.graph, dict.fromkeys("xy", TensorProto.FLOAT16))


@pytest.mark.parametrize("bad", [np.nan, 1e30, -1e30], ids=["nan", "large", "large-below-zero"])
def test_of_what_is_unusual_only_who_looks_through_everything_tells(context: SamplesContext, bad: float) -> None:
    """1e30 times 1e30 is infinite, and infinity less infinity NaN."""
    body = "a = MatMul(x, x) b = Sub(a, a) y = MatMul(b, w)"
    model = networks.prepared(f"network (float[4,4] x) => (float[4,4] y) {{ {body} }}", w=W)
    values = networks.normal(4, 4)
    given = context(model, x=values)
    file = ModelFile(networks.save(model, given.scratch / "model"))
    watched = dict.fromkeys("xay", TensorProto.FLOAT)
    summarizer = Summarizer(file, watched, given, 8, 1)
    usual = summarizer.summaries({"x": values})
    assert not any(one.has_nan or one.magnitude > LARGEST_USUAL for one in usual.values())
    values[1, 1] = bad
    with pytest.raises(UnusualValues):
        summarizer.summaries({"x": values})
    assert Summarizer(file, watched, given, 8, 1, thorough=True).summaries({"x": values})["y"].has_nan


def test_calibration_goes_through_what_is_unusual_once_more(context: SamplesContext) -> None:
    model = networks.prepared("network (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = MatMul(a, w) }", w=W)
    values = networks.normal(20, 4)
    values[11, 2] = -np.inf
    given = context(model, x=values)
    file = ModelFile(networks.save(model, given.scratch / "model"))
    seen, read = observe(file, dict.fromkeys("xay", TensorProto.FLOAT), given, 20, True, lambda share: None)
    assert (read, [name for name, one in seen.items() if not one.finite]) == (20, ["x"])
    assert seen["y"].histogram.high == pytest.approx(np.maximum(values, 0).sum(axis=1).max())
