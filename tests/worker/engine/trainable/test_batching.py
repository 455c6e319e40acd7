"""Files exported at a batch of one, with that batch in their shapes, are fed more where that is right."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from tests.worker import networks
from tests.worker.engine.trainable.exported import NETWORKS, Network
from worker.engine.model_file import ModelFile
from worker.engine.trainable.batching import takes_larger_batches
from worker.engine.trainable.importing import import_model


def _exported_at_one(network: Network, folder: Path) -> ModelFile:
    path = folder / "model.onnx"
    feed = network.feed(1)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.build().eval(), tuple(feed.values()), str(path), dynamo=False, opset_version=17,
            input_names=list(feed), output_names=["y"],
        )  # fmt: skip
    return ModelFile(path)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_file_with_a_batch_of_one_takes_more(network: Network, tmp_path: Path) -> None:
    module = import_model(_exported_at_one(network, tmp_path))
    assert set(module.fixed_batch.values()) == {1}
    assert takes_larger_batches(module, network.feed(1, seed=1), network.feed(1, seed=2))
    assert module(network.feed(5))["y"].shape[0] == 5


def _mixing() -> ModelProto:
    """The mean over the batch is taken off each sample."""
    return networks.parse(
        "g (float[1,4] x) => (float[1,4] y) { p = MatMul(x, w) m = ReduceMean<axes=[0], keepdims=1>(p) y = Sub(p, m) }"
    )


def _batch_inside() -> ModelProto:
    """The batch is the second axis of what is reshaped, where nothing says so."""
    return networks.parse(
        """g (float[1,4] x) => (float[1,2,2] y) {
            p = MatMul(x, w) t = Transpose<perm=[1,0]>(p) shape = Constant<value_ints=[2,2,-1]>()
            r = Reshape(t, shape) y = Transpose<perm=[2,0,1]>(r) }"""
    )


@pytest.mark.parametrize("model", [pytest.param(_mixing(), id="mixing"), pytest.param(_batch_inside(), id="inside")])
def test_a_file_that_would_answer_otherwise_does_not(model: ModelProto, tmp_path: Path) -> None:
    model.graph.initializer.append(numpy_helper.from_array(networks.normal(4, 4), "w"))
    module = import_model(ModelFile(networks.save(model, tmp_path)))
    first, second = ({"x": torch.from_numpy(networks.normal(1, 4, seed=seed))} for seed in (1, 2))
    assert not takes_larger_batches(module, first, second)


def test_a_table_that_was_written_for_one_sample_serves_more(tmp_path: Path) -> None:
    """Positions looked up by the tokens of each sample."""
    model = networks.parse(
        """g (int64[1,3] tokens) => (float[1,3,4] y) <int64[1,5] table = {4, 3, 2, 1, 0}>
        { places = GatherElements<axis=1>(table, tokens) y = Gather(w, places) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(networks.normal(5, 4), "w"))
    module = import_model(ModelFile(networks.save(model, tmp_path)))
    assert takes_larger_batches(module, {"tokens": torch.tensor([[0, 1, 2]])}, {"tokens": torch.tensor([[4, 4, 3]])})


def _three_a_call(*nodes: str) -> ModelProto:
    model = networks.parse(f"g (float[3,4] x) => (float[3,2,4] y) {{ p = MatMul(x, w) {' '.join(nodes)} }}")
    model.graph.initializer.append(numpy_helper.from_array(networks.normal(4, 4), "w"))
    return model


def _shaped() -> ModelProto:
    """The batch of three is a number in the first shape, and inside one in the second."""
    return _three_a_call(
        "first = Constant<value_ints=[3,4]>() second = Constant<value_ints=[12]>()",
        "third = Constant<value_ints=[-1,1,4]>()",
        "a = Reshape(p, first) b = Reshape(a, second) c = Reshape(b, third) y = Concat<axis=1>(c, c)",
    )


def _with_token() -> ModelProto:
    """A token stands beside each of the three."""
    model = _three_a_call("axes = Constant<value_ints=[1]>() u = Unsqueeze(p, axes) y = Concat<axis=1>(token, u)")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 1, 4), np.float32), "token"))
    return model


@pytest.mark.parametrize("model", [pytest.param(_shaped(), id="shapes"), pytest.param(_with_token(), id="token")])
def test_a_file_with_a_batch_of_three_takes_any_number(model: ModelProto, tmp_path: Path) -> None:
    module = import_model(ModelFile(networks.save(model, tmp_path)))
    first, second = ({"x": torch.from_numpy(networks.normal(3, 4, seed=seed))} for seed in (1, 2))
    assert takes_larger_batches(module, first, second)
    alone = module(first)["y"]
    for count in (1, 2, 5):
        given = torch.cat([first["x"], second["x"]])[:count]
        found = module({"x": given})["y"]
        assert found.shape == (count, 2, 4)
        assert torch.allclose(found[: min(3, count)], alone[: min(3, count)])


def test_a_file_whose_results_are_counted_takes_no_more(tmp_path: Path) -> None:
    """As of a detector: two calls return other numbers of boxes."""
    model = networks.parse(
        "g (float[N,4] x) => (float[2,M] y) { p = MatMul(x, w) r = Relu(p) z = NonZero(r) y = Cast<to=1>(z) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(networks.normal(4, 4), "w"))
    module = import_model(ModelFile(networks.save(model, tmp_path)))
    first, second = ({"x": torch.full((1, 4), sign) * module.state()["w"][:, 0]} for sign in (1.0, -0.2))
    assert not takes_larger_batches(module, first, second)
