"""Whole blocks and units out of networks as PyTorch exports them, one a kind."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.worker.engine.trainable.exported import NETWORKS, Network
from tests.worker.passes.schooling import Job

SAMPLES = 16
# A residual sum of convolutions; of a transformer's layer, either half. The others add nothing to what they are fed.
BLOCKS = {"residual-cnn": 1, "vit": 2, "bert": 2}


UNITS = [
    pytest.param("lstm", "at-opset-9", id="lstm-with-folded-weights"),
    pytest.param("u-net", "at-opset-9", id="u-net-with-upsample"),
    pytest.param("u-net", "new-at-opset-23", id="u-net-with-group-norm-in-one-node", marks=pytest.mark.long),
    pytest.param("vit", "new-at-opset-23", id="vit-with-attention-in-one-node", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("name", "exporter"), UNITS)
def test_half_of_the_multiply_accumulates_can_go(name: str, exporter: str, tmp_path: Path) -> None:
    (network,) = (one for one in NETWORKS if one.name == name)
    model = network.export(tmp_path / "model", exporter)
    data = {key: tensor.numpy() for key, tensor in network.feed(SAMPLES).items()}
    asked = {"target": {"mac_ratio": 0.5}, "importance": "l2", "recovery": False}
    result = Job(tmp_path / "job", data).run("prune_structured", model, **asked)
    assert result.modified
    assert not any("No more can be taken out" in note for note in result.notes)
    before, after = (ort.InferenceSession(one.path).run(None, data)[0] for one in (model, result.model))
    assert after.shape == before.shape
    assert np.isfinite(after).all()


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_every_block_can_go_and_the_rest_still_answers(network: Network, tmp_path: Path) -> None:
    model = network.export(tmp_path / "model", "old")
    data = {name: tensor.numpy() for name, tensor in network.feed(SAMPLES).items()}
    result = Job(tmp_path / "job", data).run("prune_structured", model, blocks=9)
    assert len(result.manifest.get("blocks", [])) == BLOCKS.get(network.name, 0)
    assert result.modified == (network.name in BLOCKS)
    before, after = (ort.InferenceSession(one.path).run(None, data)[0] for one in (model, result.model))
    assert after.shape == before.shape
    assert np.isfinite(after).all()
