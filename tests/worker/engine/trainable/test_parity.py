"""Parity with ONNX Runtime, node by node: the first node that disagrees is named."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker import networks
from tests.worker.backend_nodes import STORED
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.trainable import parity
from worker.engine.trainable.importing import import_model, module_of, plain_graph


def test_every_node_is_compared(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.convnet(), tmp_path / "model"))
    found = parity.check_parity(file, import_model(file), {"image": networks.normal(2, 3, 16, 16)}, tmp_path, threads=1)
    assert found.nodes == len(networks.convnet().graph.node)
    # A float32 sum of some hundred terms in another order.
    assert max(found.worst_node_error, found.output_error) < 1e-5


def test_the_first_node_that_disagrees_is_named(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.convnet(), tmp_path / "model"))
    module = import_model(file)
    for number, step in enumerate(module.steps):
        if step.node in ("residual", "head"):
            wrong = dataclasses.replace(step.operator, function=lambda _call, a, *_rest: a * 1.001)
            module.steps[number] = dataclasses.replace(step, operator=wrong)
    with pytest.raises(parity.Unfaithful, match=r"Node 'residual' \(Add\) gives another 'sum'"):
        parity.check_parity(file, module, {"image": networks.normal(2, 3, 16, 16)}, tmp_path, threads=1)


def test_functions_are_compared_node_by_node(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.with_function(), tmp_path / "model"))
    found = parity.check_parity(file, import_model(file), {"x": networks.normal(2, 8)}, tmp_path, threads=1)
    assert found.nodes == 2


@pytest.mark.parametrize(
    ("wanted", "found", "fault"),
    [
        pytest.param(np.float32([1, 1000]), np.float32([1.05, 1000]), None, id="small-beside-the-magnitude"),
        pytest.param(np.float32([1, 1000]), np.float32([1.2, 1000]), "off by 2.0e-04", id="too-large"),
        pytest.param(np.float32([0, 0]), np.float32([0, 1e-7]), None, id="noise-where-nothing-is"),
        pytest.param(np.float32([np.inf, 1]), np.float32([np.inf, 1]), None, id="infinities"),
        pytest.param(np.float32([np.nan, 1]), np.float32([0, 1]), "NaN or infinity elsewhere", id="nan"),
        pytest.param(np.int64([1, 2]), np.int64([1, 3]), "1 of 2 elements", id="integers"),
        pytest.param(np.float32([1]), np.float64([1]), "float32 [1] became float64 [1]", id="dtype"),
    ],
)
def test_a_difference_is_told_in_words(wanted: np.ndarray, found: np.ndarray, fault: str | None) -> None:
    told = parity.difference(wanted, found)[0]
    assert told is None if fault is None else told is not None and told.startswith(fault)


def test_small_values_are_compared_by_their_own_magnitude(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.perceptron(), tmp_path / "model"))
    module = import_model(file)
    step = module.steps[0]
    wrong = dataclasses.replace(step.operator, function=lambda _call, a, b: a @ b * 1.001)
    module.steps[0] = dataclasses.replace(step, operator=wrong)
    with pytest.raises(parity.Unfaithful, match="Node 'first'"):
        parity.check_parity(file, module, {"x": 1e-6 * networks.normal(2, 8)}, tmp_path, threads=1)


@pytest.mark.parametrize("name", [pytest.param("inception_v1", marks=pytest.mark.long), "shufflenet", "squeezenet"])
def test_exports_of_opset_9_are_faithful(name: str, tmp_path: Path) -> None:
    """Networks of the model zoo in the wheel of onnx, their weights made by ConstantOfShape."""
    shutil.copyfile(STORED / "light" / f"light_{name}.onnx", tmp_path / "model.onnx")
    file = ModelFile(tmp_path / "model.onnx")
    (face,) = inputs_of(file.structure())
    feed = {face.name: networks.normal(*(size for size in face.shape or () if isinstance(size, int)))}
    found = parity.check_parity(file, module_of(plain_graph(file)), feed, tmp_path / "scratch", threads=1)
    assert found.nodes >= 100


def test_no_random_number_is_drawn(tmp_path: Path) -> None:
    file = ModelFile(networks.save(networks.convnet(), tmp_path / "model"))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    parity.check_parity(file, import_model(file), {"image": networks.normal(2, 3, 16, 16)}, tmp_path, threads=1)
    assert torch.equal(torch.get_rng_state(), before)
