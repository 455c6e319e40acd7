"""Known architectures with random weights, from configurations of transformers: for speed, and for the noise added.

Convolutions are drawn as they are for training (K. He et al., arXiv:1502.01852), and BatchNorm has seen data: else
activations die out or explode on the way, and what a network returns says nothing.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.exporting import export
from benchmarks.random_samples import SIDE, images, tokens

SETTLING_IMAGES = 8
SETTLING_SEED = 1000


class Scores(nn.Module):
    """A model of transformers that returns its scores alone, from inputs by position."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def write(name: str, target: str) -> dict[str, Any]:
    """Write the architecture `name` as ONNX with a dynamic batch."""
    torch.manual_seed(0)
    model = _models()[name]().eval()
    if name == "bert-base":
        arrays = tokens(1, SETTLING_SEED)
    else:
        arrays = {"pixel_values": images(SETTLING_IMAGES, SETTLING_SEED)}
        _settle(model, torch.from_numpy(arrays["pixel_values"]))
    inputs = {key: torch.from_numpy(array[:1]) for key, array in arrays.items()}
    export(Scores(model, list(inputs)), inputs, "logits", Path(target))
    return {}


def _models() -> dict[str, Any]:
    """Each made when it is called: together they would not fit small machines."""
    return {
        "resnet50": lambda: transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)),
        "mobilenetv2": lambda: transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(num_labels=1001, image_size=SIDE)
        ),
        "efficientnet-b0": _efficientnet,
        "vit-b16": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)),
        "bert-base": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2)),
    }


def _efficientnet() -> nn.Module:
    config = transformers.EfficientNetConfig(
        num_labels=1000, image_size=SIDE, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280
    )
    model = transformers.EfficientNetForImageClassification(config)
    # Transformers pools with a window of 1280 x 1280, cut off at the image's edge. ONNX Runtime's 8-bit kernel divides
    # by the whole window: every file that quantizes it returns zeros. The paper's network averages what there is.
    model.efficientnet.pooler = nn.AdaptiveAvgPool2d(1)
    return model


def _settle(model: nn.Module, batch: torch.Tensor) -> None:
    """Draw the convolutions of a network with BatchNorm, and let it see `batch` once."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    for norm in norms:
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of what it sees
        norm.train()
    with torch.no_grad():
        model(batch)
    model.eval()
