"""The module that a graph becomes: modes, names, shapes, devices, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.worker import networks
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session
from worker.engine.trainable.arrays import NotTrainable
from worker.engine.trainable.importing import import_model
from worker.engine.trainable.module import TrainableGraph

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _imported(model: ModelProto, folder: Path) -> TrainableGraph:
    return import_model(ModelFile(networks.save(model, folder)))


def _images(count: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 3, 16, 16)


def test_parameters_go_by_the_names_of_the_file(tmp_path: Path) -> None:
    model = networks.convnet()
    module = _imported(model, tmp_path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, parameter in module.named_parameters():
        assert np.array_equal(parameter.detach().numpy(), stored[name])
    assert {name for name, _ in module.named_parameters()} | {"bn.mean", "bn.var"} == stored.keys()


def test_batch_normalization_follows_the_mode(tmp_path: Path) -> None:
    module, feed = _imported(networks.convnet(), tmp_path), {"image": _images(16)}
    before = module.state()
    module(feed)
    assert torch.equal(module.state()["bn.mean"], before["bn.mean"])
    stem, normal = module.train()(feed, ["stem", "bn"]).values()
    # Each channel of the batch has mean `bias` and standard deviation `scale`.
    assert torch.allclose(normal.mean(dim=(0, 2, 3)), before["bn.bias"], atol=1e-5)
    assert torch.allclose(normal.std(dim=(0, 2, 3)), before["bn.scale"], rtol=1e-3)
    moved = 0.9 * before["bn.mean"] + 0.1 * stem.mean(dim=(0, 2, 3))
    assert torch.allclose(module.state()["bn.mean"], moved, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 13])
def test_dropout_follows_the_mode(opset: int, tmp_path: Path) -> None:
    weights = {"w": np.ones((1000,), np.float32)} | ({"ratio": np.array(0.25, np.float32)} if opset > 11 else {})
    more = {} if opset > 11 else {"ratio": 0.25}
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("Dropout", ["a", "ratio"] if opset > 11 else ["a"], ["y"], **more),
    ]
    face = (TensorProto.FLOAT, ["N", 1000])
    module = _imported(networks.assemble(nodes, {"x": face}, {"y": face}, weights, opset), tmp_path)
    feed = {"x": torch.zeros(2, 1000)}
    assert torch.equal(module(feed)["y"], torch.ones(2, 1000))
    torch.manual_seed(0)
    first = module.train()(feed)["y"]
    torch.manual_seed(0)
    assert torch.equal(module(feed)["y"], first)
    # 2,000 draws: 0.25 +- 0.03 is three standard deviations.
    assert (first == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(first[first != 0], torch.tensor(4 / 3))


def test_what_is_computed_from_shapes_follows_the_batch(tmp_path: Path) -> None:
    """Shape, Gather, Concat, Reshape: as PyTorch writes `x.view(x.size(0), -1)`."""
    model = networks.parse(
        """g (float[N,2,8] x) => (float[a,b] y) {
            s = Shape(x)  zero = Constant<value_ints=[0]>()  n = Gather(s, zero)
            rest = Constant<value_ints=[-1]>()  target = Concat<axis=0>(n, rest)
            flat = Reshape(x, target)  y = MatMul(flat, w)
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(networks.normal(16, 5), "w"))
    module = _imported(model, tmp_path)
    for batch in (1, 7):
        x = networks.normal(batch, 2, 8)
        (wanted,) = run_session(open_session(tmp_path / "model.onnx", 1), {"x": x})
        assert np.allclose(module({"x": torch.from_numpy(x)})["y"].detach().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_it_runs_and_trains_on_a_device(device: str, tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.attention_block(), tmp_path))
    module = import_model(file, device)
    made = module({"tokens": torch.arange(12).reshape(2, 6)})["y"]
    assert made.device.type == device
    made.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(networks.with_initializers_as_inputs(networks.perceptron(opset=9)), id="weights-listed-as-inputs"),
        pytest.param(networks.with_function(), id="functions"),
    ],
)
def test_other_spellings_are_read(model: ModelProto, tmp_path: Path) -> None:
    module = _imported(model, tmp_path)
    x = networks.normal(3, 8)
    (wanted,) = run_session(open_session(tmp_path / "model.onnx", 1), {"x": x})
    assert np.allclose(module({"x": torch.from_numpy(x)})["y"].detach().numpy(), wanted, atol=1e-5)


def test_external_data_is_read(tmp_path: Path) -> None:
    single = _imported(networks.convnet(), tmp_path / "single")
    beside = import_model(ModelFile(networks.save(networks.convnet(), tmp_path / "beside", "weights.bin")))
    assert single.state().keys() == beside.state().keys()
    assert all(torch.equal(tensor, beside.state()[name]) for name, tensor in single.state().items())


def test_float64_stays_float64(tmp_path: Path) -> None:
    weights = {"w": networks.normal(4, 4).astype(np.float64)}
    face = (TensorProto.DOUBLE, ["N", 4])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    module = _imported(networks.assemble([node], {"x": face}, {"y": face}, weights), tmp_path)
    assert [parameter.dtype for parameter in module.parameters()] == [torch.float64]


def test_a_state_that_is_not_this_graphs_is_refused(tmp_path: Path) -> None:
    module = _imported(networks.convnet(), tmp_path)
    state = module.state()
    with pytest.raises(ValueError, match=r"'head\.bias' is \[10\] here and \[3\] there"):
        module.load_state(state | {"head.bias": torch.zeros(3)})
    del state["head.bias"]
    with pytest.raises(ValueError, match=r"head\.bias"):
        module.load_state(state)


def test_state_goes_from_one_module_into_another(tmp_path: Path) -> None:
    first, second = (_imported(networks.convnet(seed), tmp_path / str(seed)) for seed in (0, 1))
    second.load_state(first.state())
    assert torch.equal(second({"image": _images(2)})["logits"], first({"image": _images(2)})["logits"])


def test_control_flow_and_models_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotTrainable, match="operator If"):
        _imported(networks.with_branches(), tmp_path / "branches")
    with pytest.raises(NotTrainable, match="No float32 or float64 constant"):
        _imported(networks.parse("g (float[N] x) => (float[N] y) { y = Relu(x) }"), tmp_path / "bare")
