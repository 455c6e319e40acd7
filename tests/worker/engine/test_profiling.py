"""Kernels are known by what they stand for: the runtime's own names lead back to those of the file."""

from pathlib import Path

import onnx
import pytest

from tests.worker import networks
from tests.worker.networks import normal, prepared
from worker.engine.graph import name_nodes
from worker.engine.model_file import ModelFile
from worker.engine.profiling import node_times, origin_of, profile

# Kernels that stand for no node of the file: changes of layout.
LAYOUT = {"ReorderInput", "ReorderOutput", "Transpose"}


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("conv", "conv"),
        ("conv_nchwc", "conv"),
        ("stem_token_1", "stem"),
        ("stem_token_12_nchwc", "stem"),
        ("scores/MatmulTransposeFusion//MatMulScaleFusion/", "scores"),
        ("first/MatMulAddFusion", "first"),
        ("fused first/MatMulAddFusion", "first"),
        ("x_dequantized_DequantizeLinear/duplicated", "x_dequantized_DequantizeLinear"),
        ("/layer.1/conv/Conv", "/layer.1/conv/Conv"),
        ("token_1", "token_1"),
        ("my_token_1_conv", "my_token_1_conv"),
    ],
)
def test_what_the_runtime_adds_to_a_name_is_taken_off(name: str, origin: str) -> None:
    assert origin_of(name) == origin


@pytest.mark.parametrize(
    ("model", "feed"),
    [
        (networks.convnet(), {"image": normal(1, 3, 16, 16)}),
        (networks.perceptron(), {"x": normal(2, 8)}),
        (networks.two_inputs(), {"a": normal(2, 8), "b": normal(2, 8)}),
    ],
    ids=["convnet", "perceptron", "two-inputs"],
)
def test_every_kernel_that_computes_leads_back_to_the_file(
    model: onnx.ModelProto, feed: dict[str, object], tmp_path: Path
) -> None:
    file = ModelFile(networks.save(model, tmp_path / "model"))
    known = {name for node in model.graph.node for name in (node.name, *node.output)}
    times = profile(file, feed, 1, tmp_path, 0.05, "cpu")
    assert {time.origin for time in times if time.operator not in LAYOUT} <= known


def test_a_fused_activation_goes_by_the_name_of_either_node(tmp_path: Path) -> None:
    text = "network (float[1,3,9,9] x) => (float[1,4,7,7] y) { c = Conv(x, w) y = Relu(c) }"
    model = prepared(text, w=normal(4, 3, 3, 3))
    name_nodes(model)
    times = profile(
        ModelFile(networks.save(model, tmp_path / "model")), {"x": normal(1, 3, 9, 9)}, 1, tmp_path, 0.05, "cpu"
    )
    (convolution,) = [time for time in times if "Conv" in time.operator]
    assert convolution.origin in {"Conv_0", "Relu_1", "c", "y"}


def _event(name: str, start: int, took: int, index: int = 0) -> dict[str, object]:
    arguments = {"op_name": "Add", "node_index": index, "output_type_shape": [{"float": [2, 3]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": took, "args": arguments}


def test_the_first_call_warms_up_and_the_median_leaves_out_one_that_was_interrupted() -> None:
    runs = [{"name": "model_run", "ts": start, "dur": 90} for start in (0, 100, 200, 300)]
    events = [_event("a", start + 10, took) for start, took in ((0, 9000), (100, 20), (200, 500), (300, 30))]
    (time,) = node_times([*runs, *events])
    assert (time.name, time.kind, time.elements) == ("a", "float", 6)
    assert time.milliseconds == pytest.approx(0.03)


def test_two_kernels_of_one_name_are_two() -> None:
    runs = [{"name": "model_run", "ts": start, "dur": 90} for start in (0, 100)]
    events = [_event("a", 110, 1, index=0), _event("a", 120, 3, index=1)]
    assert sorted(time.milliseconds for time in node_times([*runs, *events])) == [0.001, 0.003]
