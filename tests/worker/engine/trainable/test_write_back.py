"""Trained weights go back under their names, and nothing else in the file moves."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from tests.worker import networks
from worker.engine.model_file import ModelFile
from worker.engine.sessions import open_session, run_session
from worker.engine.trainable.importing import import_model
from worker.engine.trainable.write_back import write_back


def _odd_convnet() -> ModelProto:
    """With what tools like to lose: metadata, documentation, names, annotations, a weight kept as typed floats."""
    model = onnx.shape_inference.infer_shapes(networks.convnet())
    model.metadata_props.add(key="author", value="somebody")
    model.graph.doc_string = "mine"
    model.graph.node[0].doc_string = "the first"
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(helper.make_tensor("head.bias", bias.data_type, bias.dims, numpy_helper.to_array(bias).tolist()))
    return model


def _parts(model: ModelProto) -> dict[str, bytes]:
    """Every part of a model, serialized, by name."""
    graph = model.graph
    parts = {f"initializer {one.name}": one.SerializeToString() for one in graph.initializer}
    parts |= {f"node {one.name}": one.SerializeToString() for one in graph.node}
    parts |= {f"value {one.name}": one.SerializeToString() for one in [*graph.input, *graph.output, *graph.value_info]}
    shell = ModelProto()
    shell.CopyFrom(model)
    for name in ("initializer", "node", "input", "output", "value_info"):
        shell.graph.ClearField(name)
    return parts | {"rest": shell.SerializeToString()}


@pytest.mark.parametrize("beside", [None, "weights.bin"], ids=["in-the-file", "external-data"])
def test_only_what_changed_is_written(beside: str | None, tmp_path: Path) -> None:
    file = ModelFile(networks.save(_odd_convnet(), tmp_path / "model", beside))
    state = import_model(file).state()
    changed = {"stem.weight", "bn.mean", "head.bias"}
    made = write_back(file, {n: t + 1 if n in changed else t for n, t in state.items()}, tmp_path / "made")
    before, after = _parts(file.load()), _parts(made.load())
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {f"initializer {name}" for name in changed}
    for tensor in made.load().graph.initializer:
        wanted = state[tensor.name].numpy() + (1 if tensor.name in changed else 0)
        assert np.array_equal(numpy_helper.to_array(tensor), wanted)
    assert [one.name for one in made.files()] == [one.name for one in file.files()]
    onnx.checker.check_model(str(made.path))


def test_nothing_changed_means_the_same_bytes(tmp_path: Path) -> None:
    file = ModelFile(networks.save(_odd_convnet(), tmp_path / "model", "weights.bin"))
    made = write_back(file, import_model(file).state(), tmp_path / "made")
    assert made.sha256() == file.sha256()


def test_tensors_that_share_bytes_part_where_one_changes(tmp_path: Path) -> None:
    path = networks.save(networks.perceptron(), tmp_path / "model", "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    twin = proto.graph.initializer.add()
    twin.CopyFrom(next(tensor for tensor in proto.graph.initializer if tensor.name == "first.bias"))
    twin.name = "twin"
    add = next(node for node in proto.graph.node if node.name == "bias")
    proto.graph.node.append(helper.make_node("Identity", ["twin"], ["copy"]))
    proto.graph.output.append(onnx.ValueInfoProto(name="copy"))
    assert add.input[1] == "first.bias"
    path.write_bytes(proto.SerializeToString())
    file = ModelFile(path)
    state = {name: tensor for name, tensor in import_model(file).state().items() if name == "first.bias"}
    made = write_back(file, {"first.bias": state["first.bias"] + 1}, tmp_path / "made")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.load().graph.initializer}
    assert np.array_equal(stored["first.bias"], stored["twin"] + 1)
    assert np.array_equal(stored["twin"], state["first.bias"].numpy())


def test_weights_in_constant_nodes_are_written_there(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], "weight", value=numpy_helper.from_array(networks.normal(4, 3))),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = networks.assemble(nodes, {"x": (1, ["N", 4])}, {"y": (1, ["N", 3])})
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = write_back(file, {"w": import_model(file).state()["w"] * 2}, tmp_path / "made")
    x = networks.normal(2, 4)
    before, after = (run_session(open_session(one.path, 1), {"x": x})[0] for one in (file, made))
    assert np.allclose(after, 2 * before, rtol=1e-6)


def test_what_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.perceptron(), tmp_path / "model"))
    with pytest.raises(ValueError, match="no constants named \\['third'\\]"):
        write_back(file, {"third": torch.zeros(3)}, tmp_path / "made")
    with pytest.raises(ValueError, match=r"'first.bias' has the shape \[32\], not \[3\]"):
        write_back(file, {"first.bias": torch.zeros(3)}, tmp_path / "other")
