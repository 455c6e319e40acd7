"""The networks of one kind each, taught what can be told from handwritten digits: some seconds each."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from examples.digits.data import Part
from tests.worker.engine.trainable.exported import Network

BATCH, RATE, STEPS = 50, 1e-2, 300
SHADES = 20
NOISE, INK = 0.3, 0.5


@dataclass(frozen=True)
class Lesson:
    """Samples as the network takes them, and of each its class, or the class of each of its pixels."""

    feed: dict[str, np.ndarray]
    labels: np.ndarray


def lesson_of(network: Network, part: Part) -> Lesson:
    """Which digit it is; of an encoder of tokens, whether it is 0, 1 or 2; of a U-Net, which pixels of a noisy image
    bear ink.
    """
    image, label = part.image, part.label
    if network.tokens:
        few = label < 3
        shades = np.rint(image[few].mean(axis=(1, 3)) * SHADES).clip(0, SHADES - 1).astype(np.int64)
        return Lesson({"tokens": shades, "mask": (shades > 0).astype(np.int64)}, label[few])
    if network.name == "u-net":
        noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
        return Lesson({"image": image + NOISE * noise}, (image[:, 0] > INK).astype(np.int64))
    ((name, shape),) = network.inputs.items()
    return Lesson({name: image.reshape(-1, *shape)}, label)


def teach(network: Network, lesson: Lesson) -> nn.Module:
    """The network behind some epochs of Adam, from weights that are the same every time."""
    torch.manual_seed(0)
    module = network.build()
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    feed = [torch.from_numpy(array) for array in lesson.feed.values()]
    labels = torch.from_numpy(lesson.labels)
    for _ in range(STEPS):
        rows = torch.randint(len(labels), (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(*(one[rows] for one in feed)), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return module.eval()
