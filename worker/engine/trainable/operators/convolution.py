"""Convolutions of one to three spatial axes."""

import torch
from torch.nn import functional

from worker.engine.trainable.operators.windows import flat_padding, padded, windows_of
from worker.engine.trainable.registry import Call, numbers, operator

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


@operator("Conv")
def conv(call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` (N, C, spatial), `weight` (M, C / group, kernel), `bias` (M) -> (N, M, spatial)."""
    windows = windows_of(call, x, list(weight.shape[2:]))
    padding: list[int] | int = windows.begin
    if windows.begin != windows.end:
        x, padding = padded(x, windows), 0
    return CONV[x.dim() - 2](x, weight, bias, windows.strides, padding, windows.dilations, call.get("group", 1))


@operator("ConvTranspose")
def conv_transpose(call: Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` (N, C, spatial), `weight` (C, M / group, kernel), `bias` (M) -> (N, M, spatial): in full, then cropped."""
    rank = x.dim() - 2
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    more = call.integers("output_padding") or [0] * rank
    full = CONV_TRANSPOSE[rank](x, weight, None, strides, 0, 0, call.get("group", 1), dilations)
    full = functional.pad(full, flat_padding([0] * rank, more)) if any(more) else full
    begin, end = _crop(call, list(x.shape[2:]), list(full.shape[2:]), strides)
    made = functional.pad(full, flat_padding([-size for size in begin], [-size for size in end]))
    return made if bias is None else made + bias.reshape(1, -1, *[1] * rank)


def _crop(call: Call, spatial: list[int], full: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """What is cut off before and behind, an axis at a time. What is too short is filled with zeros behind."""
    rank = len(spatial)
    rule, wanted = call.get("auto_pad", "NOTSET"), call.integers("output_shape")
    if wanted is None and rule.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(spatial, strides, strict=True)]
    if wanted is not None:
        total = [size - want for size, want in zip(full, wanted[-rank:], strict=True)]
        small = [max(0, size) // 2 for size in total]
        large = [max(0, size) - half for size, half in zip(total, small, strict=True)]
        begin = small if rule == "SAME_UPPER" else large
        return begin, [size - cut for size, cut in zip(total, begin, strict=True)]
    pads = (call.integers("pads") or [0] * (2 * rank)) if rule == "NOTSET" else [0] * (2 * rank)
    return pads[:rank], pads[rank:]


@operator("Col2Im", host=(1, 2))
def col2im(call: Call, x: torch.Tensor, image_shape: torch.Tensor, block_shape: torch.Tensor) -> torch.Tensor:
    """`x` (N, C * block, L) -> (N, C, image): overlapping blocks are added."""
    image, block = numbers(image_shape) or [], numbers(block_shape) or []
    rank = len(image)
    strides, dilations = call.integers("strides") or [1] * rank, call.integers("dilations") or [1] * rank
    pads = call.integers("pads") or [0] * (2 * rank)
    full = [size + pads[axis] + pads[axis + rank] for axis, size in enumerate(image)]
    index = torch.zeros((), dtype=torch.int64)
    counts = []
    for size, width, stride, dilation in zip(full, block, strides, dilations, strict=True):
        starts = torch.arange(0, size - (width - 1) * dilation, stride)
        counts.append(len(starts))
        # (block axes so far, positions so far) grow by an axis each.
        index = index.unsqueeze(-1).unsqueeze(-1) * size + (torch.arange(width) * dilation).unsqueeze(1) + starts
    order = [2 * axis for axis in range(rank)] + [2 * axis + 1 for axis in range(rank)]
    index = index.permute(order).reshape(-1).to(x.device)
    total = torch.tensor(full).prod().item()
    width = torch.tensor(block).prod().item()
    columns = x.reshape(x.shape[0], x.shape[1] // width, -1)
    made = x.new_zeros(*columns.shape[:2], total).index_add(2, index, columns).reshape(*columns.shape[:2], *full)
    return functional.pad(made, flat_padding([-size for size in pads[:rank]], [-size for size in pads[rank:]]))
