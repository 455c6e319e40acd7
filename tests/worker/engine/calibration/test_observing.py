"""Tensors of a model, call by call, and what that leaves behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine import model_file, tensor_fidelity
from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.graph_file import read_graph
from worker.engine.model_file import ModelFile
from worker.engine.moments import reading
from worker.engine.moments.products import Product
from worker.engine.nodes import constant
from worker.engine.sessions import ModelFails
from worker.engine.tensor_fidelity import Tensor, tensor_sqnr_db

X = networks.normal(4, 8)


def _left(scratch: Path) -> list[str]:
    return [path.name for path in scratch.rglob("*")]


@pytest.fixture(params=["one file", "weights beside it"])
def model(
    request: pytest.FixtureRequest, saved: Callable[..., ModelFile], monkeypatch: pytest.MonkeyPatch
) -> ModelFile:
    """Two products, copies of which are written as those of a small or a large model are."""
    if request.param == "weights beside it":
        monkeypatch.setattr(model_file, "MAX_SINGLE_FILE_BYTES", 0)
    return saved(networks.perceptron(width=64))


def test_no_copy_of_the_model_is_left_by_calls_that_were_read_to_their_end(
    model: ModelFile, context: SamplesContext
) -> None:
    given = context(model.load(), x=X)
    calls = list(exposed_calls(model, {"x": FLOAT, "active": FLOAT}, given, np.arange(4), "exposed"))
    assert [call["active"].shape for call in calls] == [(1, 64)] * 4
    np.testing.assert_array_equal(np.concatenate([call["x"] for call in calls]), X)
    assert _left(given.scratch) == []


def test_no_copy_of_the_model_is_left_by_calls_that_nobody_asks_for_any_more(
    model: ModelFile, context: SamplesContext
) -> None:
    given = context(model.load(), x=X)
    calls = exposed_calls(model, {"active": FLOAT}, given, np.arange(4), "exposed")
    next(calls)
    assert "model.onnx" in _left(given.scratch)
    calls.close()
    assert _left(given.scratch) == []


def test_no_copy_of_the_model_is_left_by_a_call_that_fails(model: ModelFile, context: SamplesContext) -> None:
    given = context(model.load(), x=X)
    with pytest.raises(ModelFails):
        list(exposed_calls(model, {"no such tensor": FLOAT}, given, np.arange(4), "exposed"))
    assert _left(given.scratch) == []


def test_what_is_read_in_many_groups_piles_up_nowhere(
    model: ModelFile, context: SamplesContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models hand out a few tensors at a time."""
    monkeypatch.setattr(tensor_fidelity, "EXPOSED_ELEMENTS", 1)
    monkeypatch.setattr(reading, "GROUP_ELEMENTS", 1)
    given = context(model.load(), x=X)
    pairs = {name: (Tensor(name), Tensor(name)) for name in ("product", "hidden", "active")}
    assert set(tensor_sqnr_db(model, model, pairs, given, 4)) == set(pairs)
    weighted = [(node, constant(node.inputs[1])) for node in read_graph(model).graph if node.op_type == "MatMul"]
    products = [Product(node, weight.shape) for node, weight in weighted if weight is not None]
    assert len(list(reading.input_moments(model, products, given, 4, with_products=False))) == 2
    assert _left(given.scratch) == []
