"""Six small networks for 28 x 28 digits, one a kind of architecture. Inputs `(N, 1, 28, 28)` float32, scores `(N, 10)`.

Sizes are chosen so that a call in float32 takes some tenths of a millisecond at least: less is mostly overhead of
calling, and says nothing about kernels.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

SIDE, CLASSES = 28, 10


def plain() -> nn.Module:
    """Convolutions and max pooling, as in K. Simonyan, A. Zisserman, arXiv:1409.1556."""
    return nn.Sequential(
        *convolution(1, 32, 3),
        nn.MaxPool2d(2),
        *convolution(32, 64, 3),
        *convolution(64, 64, 3),
        nn.MaxPool2d(2),
        *convolution(64, 128, 3),
        *convolution(128, 128, 3),
        nn.Flatten(),
        nn.Linear(128 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, CLASSES),
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut: K. He et al., arXiv:1512.03385."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *convolution(inputs, outputs, 3, stride=stride), *convolution(outputs, outputs, 3, activation=None)
        )
        same = inputs == outputs and stride == 1
        shortcut = convolution(inputs, outputs, 1, stride=stride, activation=None)
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.branch(images) + self.shortcut(images))


def residual() -> nn.Module:
    return nn.Sequential(
        *convolution(1, 32, 3, stride=2),
        Residual(32, 32, 1),
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 64, 1),
        Residual(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )


class Inverted(nn.Module):
    """Expand, filter every channel on its own, project: M. Sandler et al., arXiv:1801.04381."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 4 * inputs
        self.branch = nn.Sequential(
            *convolution(inputs, inner, 1, activation=nn.ReLU6),
            *convolution(inner, inner, 3, stride=stride, groups=inner, activation=nn.ReLU6),
            *convolution(inner, outputs, 1, activation=None),
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.branch(images)
        return images + made if self.adds else made


def depthwise() -> nn.Module:
    return nn.Sequential(
        *convolution(1, 32, 3, stride=2, activation=nn.ReLU6),
        Inverted(32, 32, 1),
        Inverted(32, 32, 1),
        Inverted(32, 96, 2),
        Inverted(96, 96, 1),
        Inverted(96, 96, 1),
        *convolution(96, 512, 1, activation=nn.ReLU6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, CLASSES),
    )


class Attention(nn.Module):
    """Multi-head self-attention, written out in products as exporters leave it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """One pre-norm layer of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attend(tokens)
        return tokens + self.feed(tokens)


class VisionTransformer(nn.Module):
    """Patches as tokens (A. Dosovitskiy et al., arXiv:2010.11929) behind a convolution, which learns from few images.

    The convolutional stem: T. Xiao et al., arXiv:2106.14881.
    """

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(1, width // 2, 3, stride=2), nn.Conv2d(width // 2, width, 2, stride=2))
        self.places = nn.Parameter(torch.randn(1, (SIDE // 4) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.layers(tokens).mean(1))


class Lstm(nn.Module):
    """Rows of the image as 28 steps: S. Hochreiter, J. Schmidhuber, Long Short-Term Memory, 1997."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.steps = nn.LSTM(SIDE, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        states, _ = self.steps(images.squeeze(1))
        return self.head(states[:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 2048),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(2048, 1024),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(1024, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits-plain": plain,
    "digits-residual": residual,
    "digits-depthwise": depthwise,
    "digits-vit": VisionTransformer,
    "digits-lstm": Lstm,
    "digits-mlp": mlp,
}


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> list[nn.Module]:
    """A convolution that keeps the size (but for its stride), its BatchNorm and, where given, its activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return layers if activation is None else [*layers, activation()]
