"""Whole blocks out of networks as PyTorch exports them, one a kind."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.worker.engine.trainable.exported import NETWORKS, Network
from tests.worker.passes.schooling import Job

SAMPLES = 16
# A residual sum of convolutions; of a transformer's layer, either half. The others add nothing to what they are fed.
BLOCKS = {"residual-cnn": 1, "vit": 2, "bert": 2}


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
