"""Networks exported by PyTorch, old and new: the import computes the same, trains, and goes back into the file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker.engine.trainable.exported import FURTHER, NETWORKS, Network
from worker.engine.sessions import open_session, run_session
from worker.engine.trainable.claims import unsupported
from worker.engine.trainable.importing import import_model
from worker.engine.trainable.module import TrainableGraph
from worker.engine.trainable.parity import check_parity
from worker.engine.trainable.write_back import write_back

# float32 sums in another order cost about 1e-6 of a tensor's magnitude a node; none of these networks is deep.
LARGEST_ERROR = 1e-5
# A plain step down the gradient, small enough for every network here.
RATE, STEPS = 0.05, 20
# Attention as torch writes it now is not to be had in so old a file.
AT_OPSET_9 = [one for one in (*NETWORKS, *FURTHER) if one.name not in ("vit", "bert")]
# No file tells the anchors of a detector, which its network only reads, from weights.
WITHOUT_CONSTANTS = [one for one in (*NETWORKS, *FURTHER) if one.name != "detector"]
EXPORTS = [(one, exporter) for one in (*NETWORKS, *FURTHER) for exporter in ("old", "new")]
EXPORTS += [(one, "at-opset-9") for one in AT_OPSET_9]
# The new exporter takes seconds of each: one of attention every time, and one of convolutions goes through the service.
LONG = {(one.name, "new"): [pytest.mark.long] for one in (*NETWORKS, *FURTHER) if one.name != "vit"}


def _loss(module: TrainableGraph, feed: dict[str, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return (module(feed)["y"] - target).square().mean()


@pytest.mark.parametrize(
    ("network", "exporter"),
    [
        pytest.param(one, exporter, id=f"{one}-{exporter}", marks=LONG.get((one.name, exporter), []))
        for one, exporter in EXPORTS
    ],
)
def test_an_export_trains_and_comes_back(network: Network, exporter: str, tmp_path: Path) -> None:
    file = network.export(tmp_path / "model", exporter)
    assert unsupported(file.structure()) == []
    module = import_model(file)
    feed = network.feed(5)
    arrays = {name: tensor.numpy() for name, tensor in feed.items()}
    parity = check_parity(file, module, arrays, tmp_path, threads=1)
    assert parity.nodes == len(module.steps) - sum(step.operator.name == "Dropout" for step in module.steps)
    assert max(parity.worst_node_error, parity.output_error) < LARGEST_ERROR

    before = module.state()
    torch.manual_seed(2)
    target = torch.randn_like(module(feed)["y"])
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    module.train()
    first = _loss(module, feed, target)
    first.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert parameter.grad.abs().max() > 0, name
    for _ in range(STEPS):
        optimizer.zero_grad()
        _loss(module, feed, target).backward()
        optimizer.step()
    module.eval()
    assert _loss(module, feed, target) < first

    trained = write_back(file, module.state(), tmp_path / "trained")
    assert all(not torch.equal(before[name], tensor) for name, tensor in module.state().items())
    (answer,) = run_session(open_session(trained.path, 1), arrays, ["y"])
    found = module(feed)["y"].detach().numpy()
    assert np.abs(answer - found).max() < LARGEST_ERROR * np.abs(answer).max()


@pytest.mark.parametrize("network", WITHOUT_CONSTANTS, ids=str)
def test_every_weight_of_the_network_is_a_parameter(network: Network, tmp_path: Path) -> None:
    """Elements, not names: exporters rename, transpose and stack weights."""
    module = import_model(network.export(tmp_path, "old"))
    torch.manual_seed(1)
    own = network.build()
    found = sum(parameter.numel() for parameter in module.parameters())
    # GroupNorm is written as InstanceNormalization of ones and zeros with scale and shift behind it.
    extra = sum(2 * one.num_groups for one in own.modules() if isinstance(one, torch.nn.GroupNorm))
    assert found == sum(parameter.numel() for parameter in own.parameters()) + extra
    running = sum(one.numel() for one in own.buffers() if one.is_floating_point())
    assert sum(module.state()[name].numel() for name in module.statistics) == running
