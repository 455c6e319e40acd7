"""Training the digit networks: a minute each on two cores, to more than 97 % of the digits kept."""

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from benchmarks.digit_images import DEVIATION, MEAN, TRAINING, read_digits
from benchmarks.digit_networks import NETWORKS, SIDE
from benchmarks.exporting import export
from benchmarks.wide_digit_networks import WIDE_NETWORKS

BATCH = 100
FURTHEST_SHIFT = 2
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
# What 97 % takes: attention and recurrence know nothing of images beforehand.
EPOCHS = {"digits-vit": 12, "digits-lstm": 16, "digits-mlp": 16, "digits-wide-mlp": 16, "digits-wide-vit": 12}
FEWEST_EPOCHS = 5
BLACK = -MEAN / DEVIATION
BUILDERS = NETWORKS | WIDE_NETWORKS


def train(name: str, digits: str, target: str, weights: str) -> dict[str, Any]:
    """Train `name` on the first digits of the folder `digits` and write it as ONNX with a dynamic batch.

    Its tensors as torch knows them go into the safetensors file `weights`.
    """
    started = time.perf_counter()
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(array) for array in read_digits(Path(digits)))
    network = BUILDERS[name]()
    loss = _fit(network, images[:TRAINING], labels[:TRAINING], EPOCHS.get(name, FEWEST_EPOCHS))
    network.eval()
    with torch.no_grad():
        hits = [
            network(batch).argmax(1) == truth
            for batch, truth in zip(images[TRAINING:].split(500), labels[TRAINING:].split(500), strict=True)
        ]
    save_file(network.state_dict(), weights)
    export(network, {"image": images[:1]}, "scores", Path(target))
    accuracy = float(torch.cat(hits).float().mean())
    return {"loss": loss, "accuracy": accuracy, "seconds": time.perf_counter() - started}


def trained_network(name: str, weights: Path) -> nn.Module:
    """The torch module that `train` wrote `weights` of."""
    network = BUILDERS[name]()
    network.load_state_dict(load_file(weights))
    return network


def write_untrained(name: str, digits: str, target: str, seed: int) -> dict[str, Any]:
    """`name` as it is drawn by `seed`, as ONNX with a dynamic batch, its BatchNormalizations not folded."""
    torch.manual_seed(seed)
    images, _ = read_digits(Path(digits))
    network = BUILDERS[name]()
    export(network, {"image": torch.from_numpy(images[:1])}, "scores", Path(target), for_training=True)
    return {}


def _fit(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> float:
    """The mean loss of the last epoch."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * steps)
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = functional.cross_entropy(network(_shifted(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) / steps
    return total


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Every image moved by up to two pixels each way, with black where it was not."""
    padded = functional.pad(images, [FURTHEST_SHIFT] * 4, value=BLACK)
    places = torch.randint(2 * FURTHEST_SHIFT + 1, (2, len(images)))
    return torch.stack([one[:, y : y + SIDE, x : x + SIDE] for one, y, x in zip(padded, *places.tolist(), strict=True)])
