"""Every kind of network as PyTorch's new exporter writes it: pruned, distilled and trained in int8 through the API."""

from pathlib import Path

import pytest

from app.client import Lathe
from tests.journeys.trained_chains import some_of_them, travel
from tests.worker.engine.trainable.exported import Network


@pytest.mark.parametrize("network", some_of_them("residual-cnn"))
def test_a_model_is_pruned_distilled_and_quantized_in_one_job(network: Network, lathe: Lathe, tmp_path: Path) -> None:
    travel(network, "new", lathe, tmp_path)
