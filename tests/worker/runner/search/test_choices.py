"""The search picks differently for different models, and says why."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from tests.worker.runner.optimizing import optimize

FLOAT = TensorProto.FLOAT
SAMPLES = 48
BUDGET = 60.0
# These are of which is faster, on a busy machine.
ROUNDS, ROUND_SECONDS = 5, 0.15
PASSES = ["optimize_graph", "quantize_static", "quantize_dynamic"]


def wide_convolutions() -> onnx.ModelProto:
    """Three 3 x 3 convolutions of 64 channels: a call takes a millisecond or more."""
    nodes, weights, name = [], {}, "x"
    for number in range(3):
        weights[f"w{number}"] = networks.normal(64, 64 if number else 3, 3, 3, seed=number) / 24
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name := f"r{number}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["y"]))
    return networks.assemble(nodes, {"x": (FLOAT, ["N", 3, 32, 32])}, {"y": (FLOAT, ["N", 64, 1, 1])}, weights)


def long_memory() -> onnx.ModelProto:
    """An LSTM of 256 units, which has an int8 kernel with ranges taken at run time and none with ranges given."""
    return networks.recurrent(steps=16, inputs=64, hidden=256)


def smooth_functions() -> onnx.ModelProto:
    """Nothing that multiplies matrices."""
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Tanh", ["e"], ["t"])]
    nodes.append(helper.make_node("Erf", ["t"], ["y"]))
    return networks.assemble(nodes, {"x": (FLOAT, ["N", 50_000])}, {"y": (FLOAT, ["N", 50_000])})


def attention() -> onnx.ModelProto:
    """A transformer's first half: products of 256 channels that have int8 kernels, and much between them that is
    better left in float.
    """
    return networks.attention_block(length=64, width=256)


def tokens(count: int) -> dict[str, np.ndarray]:
    return {"tokens": np.random.default_rng(0).integers(0, 50, (count, 64))}


@dataclass
class Case:
    id: str
    model: Callable[[], onnx.ModelProto]
    samples: dict[str, np.ndarray]
    recipes: list[list[str]]
    """One of them wins."""
    words: str
    """Somewhere in the explanation of the search."""


NO_DYNAMIC = "int8, dynamic: `quantize_dynamic` changed nothing"
NO_STATIC = "int8, static: `quantize_static` changed nothing"
CASES = [
    Case(
        "convolutions",
        wide_convolutions,
        {"x": networks.normal(SAMPLES, 3, 32, 32)},
        [["quantize_static"]],
        NO_DYNAMIC,
    ),
    Case(
        "a long memory",
        long_memory,
        {"x": networks.normal(SAMPLES, 16, 1, 64)},
        [["quantize_dynamic"]],
        NO_STATIC,
    ),
    Case("attention", attention, tokens(SAMPLES), [["quantize_dynamic"], ["quantize_static"]], "int8"),
    Case(
        "smooth functions",
        smooth_functions,
        {"x": networks.normal(SAMPLES, 50_000)},
        [[]],
        "the original is delivered",
    ),
]


# They take between a quarter and half of a minute; what of them stays in float is tested below the search as well.
LONG = ("convolutions", "a long memory", "attention")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id, marks=[pytest.mark.long] if case.id in LONG else []) for case in CASES]
)
def test_the_recipe_suits_the_model(case: Case, tmp_path: Path) -> None:
    model = case.model()
    body = {"metric": {"name": "sqnr_db"}, "contract": {"floor": 10.0}, "search": {"passes": PASSES}}
    samples = {"evaluation": case.samples}
    result = optimize(
        tmp_path, model, samples, BUDGET, timing_rounds=ROUNDS, round_seconds=ROUND_SECONDS, recipe="auto", **body
    )
    report = result.report
    assert report is not None
    assert report.search is not None
    told = " ".join(report.search.explanation)
    assert report.candidates[0].recipe in case.recipes, told
    assert case.words in told
    # Whichever it is: what is no product of matrices stays in float where it is faster there.
    layers = [layer for step in report.steps for layer in step.layers]
    assert not {layer.operator for layer in layers if layer.planned == "int8"} & {"LayerNormalization", "Softmax"}


@pytest.mark.long
def test_a_last_pass_that_finds_nothing_to_do_spoils_nothing(tmp_path: Path) -> None:
    """Convolutions have no dynamic form; that half of them are gone is something all the same."""
    samples = {"x": networks.normal(24, 3, 32, 32)}
    given = [[{"pass": "prune_structured", "ratio": 0.5}, {"pass": "quantize_dynamic"}]]
    result = optimize(
        tmp_path, wide_convolutions(), {"evaluation": samples}, BUDGET, recipe="auto", search={"given": given}
    )
    assert result.report is not None
    assert result.report.search is not None
    [trial] = result.report.search.trials
    assert trial.outcome != "failed"
    assert trial.latency_ratio is not None
