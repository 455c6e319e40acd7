"""Attention under a mask as PyTorch's exporters write it, made ready."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.worker.engine.trainable.exported import WIDTH, Network, SelfAttention
from worker.engine.preparation import operator_counts, prepare

LENGTH = 5


class Reader(nn.Module):
    """Rows (N, length, width) and which of them may be looked at -> (N, length, width): attention twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SelfAttention() for _ in range(2))

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        mask = (seen > 0)[:, None, None, :]
        for layer in self.layers:
            x = x + layer(x, mask)
        return x


@pytest.mark.parametrize("exporter", [pytest.param("new", marks=pytest.mark.long), "old"])
def test_what_sees_nothing_is_told_from_the_mask(exporter: str, tmp_path: Path) -> None:
    network = Network("reader", Reader, {"x": (LENGTH, WIDTH), "seen": (LENGTH,)})
    model = network.export(tmp_path / "exported", exporter)
    feed = {name: tensor.numpy() for name, tensor in network.feed(3).items()}
    feed["seen"][0] = -1
    made = prepare(model, feed, tmp_path / "scratch", threads=1)
    before, after = operator_counts(model.structure()), operator_counts(made.model.structure())
    assert (before["IsNaN"], after.get("IsNaN", 0)) == (2, 0)
    answers = [ort.InferenceSession(file.path).run(None, feed)[0] for file in (model, made.model)]
    assert not np.isnan(answers[0]).any()
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4, atol=1e-5)
