"""Where the windows of a convolution or a pooling lie along each spatial axis."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call


@dataclass(frozen=True)
class Windows:
    """One entry a spatial axis. `extra` is what the last window reaches past the padded input, with `ceil_mode`."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]
    outputs: list[int]
    extra: list[int]

    def padding(self, *, extra: bool) -> list[int]:
        """As `functional.pad` takes it: last axis first, begin and end in turn."""
        ends = [end + (more if extra else 0) for end, more in zip(self.end, self.extra, strict=True)]
        return flat_padding(self.begin, ends)

    @property
    def is_padded(self) -> bool:
        return any(self.begin) or any(self.end) or any(self.extra)


def flat_padding(begin: list[int], end: list[int]) -> list[int]:
    return [size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]


def windows_of(call: Call, x: torch.Tensor, kernel: list[int]) -> Windows:
    """The windows over an input (N, C, spatial axes)."""
    spatial = list(x.shape[2:])
    rank = len(spatial)
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    begin, end = _pads(call, spatial, strides, reach)
    outputs, extra = [], []
    for axis in range(rank):
        padded = spatial[axis] + begin[axis] + end[axis]
        rest = (padded - reach[axis]) / strides[axis]
        count = (math.ceil(rest) if call.get("ceil_mode", 0) else math.floor(rest)) + 1
        if call.get("ceil_mode", 0) and (count - 1) * strides[axis] >= spatial[axis] + begin[axis]:
            count -= 1  # a window that would begin in the padding behind the input
        outputs.append(count)
        extra.append(max(0, (count - 1) * strides[axis] + reach[axis] - padded))
    return Windows(kernel, strides, dilations, begin, end, outputs, extra)


def _pads(call: Call, spatial: list[int], strides: list[int], reach: list[int]) -> tuple[list[int], list[int]]:
    rank = len(spatial)
    rule = call.get("auto_pad", "NOTSET")
    if rule == "NOTSET":
        pads = call.integers("pads") or [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    if rule == "VALID":
        return [0] * rank, [0] * rank
    begin, end = [], []
    for size, stride, span in zip(spatial, strides, reach, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + span - size)
        small, large = total // 2, total - total // 2
        begin.append(small if rule == "SAME_UPPER" else large)
        end.append(large if rule == "SAME_UPPER" else small)
    return begin, end


def padded(x: torch.Tensor, windows: Windows, value: float = 0.0, *, extra: bool = False) -> torch.Tensor:
    """The input with its padding written out."""
    sizes = windows.padding(extra=extra)
    return functional.pad(x, sizes, value=value) if any(sizes) else x
