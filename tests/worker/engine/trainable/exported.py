"""Networks of the size of digits, one a kind, written in torch and exported by both of its exporters."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from worker.engine.model_file import ModelFile

WIDTH, HEADS, LENGTH = 16, 2, 8


class ResidualCnn(nn.Module):
    """(N, 1, 8, 8) -> (N, 10): Conv + BatchNorm, a residual sum, a concatenation, a depthwise convolution.

    No bias stands before a BatchNorm: it would have no gradient but rounding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 8, 1, bias=False)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, stride=2, groups=16, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(image)))
        x = torch.relu(x + self.inner_norm(self.inner(x)))
        x = torch.cat([x, self.side(x)], dim=1)
        x = nn.functional.relu6(self.depthwise_norm(self.depthwise(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class SelfAttention(nn.Module):
    """(N, length, width) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        n, length, _ = x.shape
        query, key, value = self.qkv(x).reshape(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))


class Block(nn.Module):
    """A transformer's layer, normalized first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = SelfAttention()
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.first(x), mask)
        return x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))


class VisionTransformer(nn.Module):
    """(N, 1, 8, 8) -> (N, 10): patches, a class token, positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.block, self.norm, self.head = Block(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(image.shape[0], -1, -1), patches], dim=1) + self.positions
        return self.head(self.norm(self.block(x))[:, 0])


class TextEncoder(nn.Module):
    """Tokens (N, length) and their mask -> (N, 3): a BERT of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm, self.block, self.head = nn.LayerNorm(WIDTH), Block(), nn.Linear(WIDTH, 3)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(places))
        additive = (1 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        return self.head(torch.tanh(self.block(x, additive)[:, 0]))


class SequenceReader(nn.Module):
    """(N, 8, 8) -> (N, 10): an LSTM in both directions over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(8, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.reader(rows)[0].mean(dim=1))


class GatedReader(nn.Module):
    """(N, 8, 8) -> (N, 10): two layers of GRU over the rows, of which the last answer counts."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.GRU(8, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.reader(rows)[0][:, -1])


class Detector(nn.Module):
    """(N, 1, 8, 8) -> (N, 80, 7): four offsets to an anchor and three classes, of grids of 8 x 8 and 4 x 4, as in SSD.

    The offsets become boxes as SSD decodes them: centres shifted by sizes, sizes by exponentials.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in (8, 12))
        self.classes = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for width in (8, 12))
        grids = [(torch.cartesian_prod(torch.arange(n), torch.arange(n)) + 0.5) / n for n in (8, 4)]
        sizes = [torch.full((n * n, 2), 1.0 / n) for n in (8, 4)]
        self.register_buffer("anchors", torch.cat([torch.cat(grids), torch.cat(sizes)], dim=1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.stem(image))
        maps = (fine, torch.relu(self.down(fine)))
        boxes = torch.cat([_in_rows(head(one), 4) for head, one in zip(self.boxes, maps, strict=True)], dim=1)
        classes = torch.cat([_in_rows(head(one), 3) for head, one in zip(self.classes, maps, strict=True)], dim=1)
        centres = self.anchors[:, :2] + 0.1 * boxes[..., :2] * self.anchors[:, 2:]
        sizes = self.anchors[:, 2:] * torch.exp(0.2 * boxes[..., 2:])
        return torch.cat([centres - sizes / 2, centres + sizes / 2, torch.softmax(classes, dim=-1)], dim=-1)


def _in_rows(found: torch.Tensor, values: int) -> torch.Tensor:
    """(N, values, H, W) -> (N, H * W, values)."""
    return found.permute(0, 2, 3, 1).reshape(found.shape[0], -1, values)


class UNet(nn.Module):
    """(N, 1, 8, 8) -> (N, 2, 8, 8): down by pooling, up by a transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 6), (6, 8), (8, 8)))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.joined, self.out = nn.Conv2d(16, 6, 3, padding=1), nn.Conv2d(12, 2, 1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        outer = torch.relu(self.first(image))
        middle = nn.functional.silu(self.norm(self.second(nn.functional.max_pool2d(outer, 2))))
        inner = torch.relu(self.third(nn.functional.avg_pool2d(middle, 2)))
        middle = torch.relu(self.joined(torch.cat([self.up(inner), middle], dim=1)))
        upper = nn.functional.interpolate(middle, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(torch.cat([upper, outer], dim=1))


class Perceptron(nn.Module):
    """(N, 64) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class Network:
    """A network and how its inputs are drawn: floats of these shapes, or tokens below 20 and a mask."""

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    tokens: bool = False

    def __str__(self) -> str:
        return self.name

    def feed(self, batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """One call."""
        torch.manual_seed(seed)
        if self.tokens:
            mask = (torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (batch, 1))).to(torch.int64)
            return {"tokens": torch.randint(0, 20, (batch, LENGTH)), "mask": mask}
        return {name: torch.randn(batch, *shape) for name, shape in self.inputs.items()}

    def export(
        self, folder: Path, exporter: str, *, untrained: bool = False, module: nn.Module | None = None
    ) -> ModelFile:
        """By the `new` exporter, or that `new-at-opset-23`, where attention is one node and GroupNorm another; by the
        `old` one, told to fold no constants, or that `at-opset-9`, as old releases of torch wrote files.

        The batch axis is open. Without a `module` of this network weights are as if trained: no two tensors alike,
        which exporters merge.
        """
        network = module or self._drawn(untrained)
        feed = self.feed(2)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not exporter.startswith("new"):
                axes, ancient = {name: {0: "N"} for name in feed}, exporter == "at-opset-9"
                mode = torch.onnx.TrainingMode.EVAL if ancient else torch.onnx.TrainingMode.PRESERVE
                torch.onnx.export(
                    network.eval(), tuple(feed.values()), str(path), dynamo=False, opset_version=9 if ancient else 17,
                    input_names=list(feed), output_names=["y"], dynamic_axes=axes,
                    training=mode, do_constant_folding=ancient,
                )  # fmt: skip
            else:
                opset = 23 if exporter == "new-at-opset-23" else 18
                shapes = tuple({0: torch.export.Dim("N", min=1, max=64)} for _ in feed)
                torch.onnx.export(
                    network.eval(), tuple(feed.values()), str(path), dynamo=True, opset_version=opset, verbose=False,
                    input_names=list(feed), output_names=["y"], dynamic_shapes=shapes, external_data=False,
                )  # fmt: skip
        return ModelFile(path)

    def _drawn(self, untrained: bool) -> nn.Module:
        torch.manual_seed(1)
        network = self.build()
        with torch.no_grad():
            for tensor in (*network.parameters(), *(one for one in network.buffers() if one.is_floating_point())):
                tensor.add_(torch.rand_like(tensor) * (0.0 if untrained else 0.2))
        return network


IMAGE = {"image": (1, 8, 8)}
NETWORKS = [
    Network("residual-cnn", ResidualCnn, IMAGE),
    Network("vit", VisionTransformer, IMAGE),
    Network("bert", TextEncoder, {}, tokens=True),
    Network("lstm", SequenceReader, {"rows": (8, 8)}),
    Network("u-net", UNet, IMAGE),
    Network("mlp", Perceptron, {"x": (64,)}),
]
# As the others, but not led through the service as well.
FURTHER = [
    Network("gru", GatedReader, {"rows": (8, 8)}),
    Network("detector", Detector, IMAGE),
]
