"""Zeros that pruning made stay; those of a weight that has yet to learn anything do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.preparation import prepared
from worker.engine.training.masks import weights_as_uploaded, zeros_of


@pytest.mark.parametrize(
    ("zeros", "stay"),
    [
        pytest.param(0, False, id="none"),
        pytest.param(1, False, id="by-chance"),
        pytest.param(60, True, id="pruned"),
        pytest.param(100, False, id="never-trained"),
    ],
)
def test_zeros_stay_where_pruning_left_them(zeros: int, stay: bool) -> None:
    weight = torch.ones(100)
    weight[:zeros] = 0.0
    assert set(zeros_of({"weight": weight.reshape(10, 10)})) == ({"weight"} if stay else set())


def test_a_single_zero_that_was_none_before_is_a_pruned_one() -> None:
    weight = torch.ones(10, 10)
    weight[0, 0] = 0.0
    before = np.ones((10, 10), np.float32)
    assert set(zeros_of({"weight": weight}, {"weight": before})) == {"weight"}
    before[0, 0] = 0.0
    assert zeros_of({"weight": weight}, {"weight": before}) == {}
    # A layer that was made narrower is another.
    assert zeros_of({"weight": weight}, {"weight": np.ones((12, 10), np.float32)}) == {}


def test_a_weight_that_pruning_took_whole_stays_zero() -> None:
    gone = {"weight": torch.zeros(10, 10)}
    before = np.zeros((10, 10), np.float32)
    assert zeros_of(gone, {"weight": before}) == {}
    before[3, 4] = 1.0
    assert not zeros_of(gone, {"weight": before})["weight"].any()


PRODUCT = "network (float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }"


def _in_a_node() -> ModelProto:
    model = networks.parse(PRODUCT)
    tensor = numpy_helper.from_array(normal(4, 4), "w")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(networks.holding(PRODUCT, w=normal(4, 4)), id="initializer"),
        pytest.param(
            networks.with_initializers_as_inputs(networks.holding(PRODUCT, w=normal(4, 4))), id="listed-as-an-input"
        ),
        pytest.param(_in_a_node(), id="constant-node"),
    ],
)
def test_a_weight_is_known_as_it_was_uploaded(model: ModelProto, tmp_path: Path, context: SamplesContext) -> None:
    original = ModelFile(networks.save(model, tmp_path / "original"))
    tensors = {"w": torch.ones(4, 4), "v": torch.ones(4, 4)}
    job = replace(context(model, x=normal(3, 4)), original=original)
    found = weights_as_uploaded(tensors, ModelFile(tmp_path / "pruned" / "model.onnx"), job)
    assert found.keys() == {"w"}
    np.testing.assert_array_equal(found["w"], normal(4, 4))
    # A first pass would read the whole model once more to learn nothing.
    assert weights_as_uploaded(tensors, original, job) == {}


def test_a_weight_that_preparing_renames_is_known_where_nothing_is_left_of_it(
    tmp_path: Path, context: SamplesContext
) -> None:
    model = networks.prepared(
        "network (float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) }",
        w=normal(4, 3, 3, 3),
        **dict.fromkeys("st", normal(4) + 2),
        **dict.fromkeys("mv", np.ones(4, np.float32)),
    )
    original = ModelFile(networks.save(model, tmp_path / "original"))
    job = replace(context(model, x=normal(2, 3, 6, 6)), original=original)
    (name,) = (
        name for name, tensor in constants_of(prepared(original, job).model.load().graph) if len(tensor.dims) > 2
    )
    assert name != "w"
    pruned = ModelFile(tmp_path / "pruned" / "model.onnx")
    emptied, rounded = torch.zeros(4, 3, 3, 3), torch.ones(4, 3, 3, 3)
    rounded[0, 0, 0, 0] = 0.0
    assert zeros_of({name: emptied}, weights_as_uploaded({name: emptied}, pruned, job)).keys() == {name}
    assert zeros_of({name: rounded}, weights_as_uploaded({name: rounded}, pruned, job)) == {}


def test_offsets_are_no_weights() -> None:
    assert zeros_of({"bias": torch.tensor([0.0, 0.0, 1.0])}) == {}
