"""Plain torch: a network trained on labels by a loop as tutorials have it, nothing held out and no weights averaged."""

import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.digit_training import BUILDERS
from benchmarks.exporting import export
from benchmarks.tasks import Task, arrays_in

BATCH, LEARNING_RATE = 64, 1e-3


def train(task: dict[str, Any], name: str, seed: int, epochs: int) -> dict[str, Any]:
    """`name` as `seed` draws it, after so many epochs over all the training data, by AdamW along one cycle."""
    one = Task(**task)
    torch.set_num_threads(one.threads)
    torch.manual_seed(seed)
    network = BUILDERS[name]().train()
    data = {key: torch.from_numpy(array.copy()) for key, array in arrays_in(Path(one.training)).items()}
    images, labels = data.pop("image"), next(iter(data.values())).long()
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * steps)
    started = time.perf_counter()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - started
    export(network.eval(), {"image": images[:1]}, "scores", Path(one.target))
    return {"seconds": seconds}
