"""Torch-Pruning: filters taken out of a torch module by magnitude, https://github.com/VainF/Torch-Pruning."""

import time
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn

from benchmarks.digit_networks import SIDE
from benchmarks.digit_training import trained_network
from benchmarks.exporting import export
from benchmarks.tasks import Task


def prune(task: dict[str, Any], name: str, ratio: float) -> dict[str, Any]:
    """The share `ratio` of all channels removed, those of the smallest L2 norm, in every layer alike; scores stay.

    It is written with BatchNormalization apart, so that fine-tuning behind it trains as torch would.
    """
    one = Task(**task)
    network = trained_network(name, Path(one.weights)).eval()
    images = torch.zeros(1, 1, SIDE, SIDE)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    started = time.perf_counter()
    torch_pruning.pruner.MagnitudePruner(
        network,
        images,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
    ).step()
    seconds = time.perf_counter() - started
    export(network, {"image": images}, "scores", Path(one.target), for_training=True)
    return {"seconds": seconds}
