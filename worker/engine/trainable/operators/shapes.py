"""Shapes: asking for them, changing them, putting tensors together and taking them apart.

Sizes are what they are when the graph runs, so that what it computes from its input's shape follows the batch.
"""

import math
from fractions import Fraction

import torch
from torch.nn import functional

from worker.engine.trainable.arrays import torch_type
from worker.engine.trainable.registry import Call, numbers, operator


@operator("Shape")
def shape(call: Call, x: torch.Tensor) -> torch.Tensor:
    """int64 on the CPU."""
    return torch.tensor(x.shape[call.get("start", 0) : call.get("end", None)], dtype=torch.int64)


@operator("Size")
def size(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.numel())


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(call: Call, sizes: torch.Tensor) -> torch.Tensor:
    """Floats go where the model is; integers are shapes more often than not."""
    value = call.get("value", None)
    value = torch.zeros(1) if value is None else value
    device = call.device if value.is_floating_point() else torch.device("cpu")
    return value.reshape(()).to(device).repeat(numbers(sizes) or [])


@operator("EyeLike")
def eye_like(call: Call, x: torch.Tensor) -> torch.Tensor:
    dtype = torch_type(call.get("dtype", 0)) if "dtype" in call.attributes else x.dtype
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
    return (columns - call.get("k", 0) == rows.unsqueeze(1)).to(dtype)


@operator("Range", host=(0, 1, 2))
def range_(_call: Call, start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("Reshape", host=(1,))
def reshape(call: Call, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """0 keeps an axis unless `allowzero`; -1 takes what is left."""
    wanted = numbers(sizes) or []
    follows = call.growth == 1 or not wanted or wanted[0] in (0, -1)
    if not call.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted if follows else _grown(wanted, x.numel(), call.growth))


def _grown(wanted: list[int], count: int, growth: Fraction) -> list[int]:
    """A shape that fixes a batch, for a batch `growth` times as large: it is the first axis, or part of it."""
    first = wanted[0] * growth
    if first.denominator == 1 and (-1 in wanted or math.prod(wanted) * growth == count):
        return [int(first), *wanted[1:]]
    return wanted


@operator("Flatten")
def flatten(call: Call, x: torch.Tensor) -> torch.Tensor:
    axis = call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@operator("Transpose")
def transpose(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.permute(call.integers("perm") or list(reversed(range(x.dim()))))


@operator("Squeeze", until=12)
def squeeze_by_attribute(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _squeezed(x, call.integers("axes"))


@operator("Squeeze", since=13, host=(1,))
def squeeze(_call: Call, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    return _squeezed(x, numbers(axes))


def _squeezed(x: torch.Tensor, axes: list[int] | None) -> torch.Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Unsqueeze", until=12)
def unsqueeze_by_attribute(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _unsqueezed(x, call.integers("axes") or [])


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze(_call: Call, x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return _unsqueezed(x, numbers(axes) or [])


def _unsqueezed(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", host=(1,))
def expand(_call: Call, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Both ways, as broadcasting goes: a 1 keeps what the tensor has."""
    return x.expand(torch.broadcast_shapes(x.shape, torch.Size(numbers(sizes) or [])))


@operator("Tile", host=(1,))
def tile(_call: Call, x: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    return x.repeat(numbers(repeats) or [])


@operator("Concat")
def concat(call: Call, *tensors: torch.Tensor) -> torch.Tensor:
    if call.growth != 1:
        # A constant that stands beside every sample, a class token, was written for the batch of the file.
        sizes = [one.shape[0] for one in tensors]
        rows = max(sizes) if call.growth > 1 else min(sizes)
        tensors = tuple(repeated(one, rows) if call.get("axis", 1) % one.dim() else one for one in tensors)
    return torch.cat(tensors, dim=call.get("axis", 1))


def repeated(x: torch.Tensor, rows: int) -> torch.Tensor:
    """So many rows of it, from the first again behind the last."""
    return x.repeat(-(-rows // x.shape[0]), *[1] * (x.dim() - 1))[:rows]


@operator("Split", until=12)
def split_by_attribute(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _split(call, x, call.integers("split"))


@operator("Split", since=13, host=(1,))
def split(call: Call, x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    return _split(call, x, numbers(sizes))


def _split(call: Call, x: torch.Tensor, sizes: list[int] | None) -> tuple[torch.Tensor, ...]:
    """Evenly where no sizes are given, the last part smaller."""
    axis = call.get("axis", 0)
    if sizes is None:
        part = -(-x.shape[axis] // call.get("num_outputs", call.outputs))
        sizes = [max(0, min(part, x.shape[axis] - start * part)) for start in range(call.outputs)]
    return tuple(torch.split(x, sizes, dim=axis))


@operator("Pad", until=10)
def pad_by_attribute(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _padded(call, x, call.integers("pads") or [], list(range(x.dim())), call.get("value", 0.0))


@operator("Pad", since=11, host=(1, 2, 3))
def pad(
    call: Call,
    x: torch.Tensor,
    pads: torch.Tensor,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    chosen = numbers(axes) or list(range(x.dim()))
    fill = 0 if value is None or value.numel() == 0 else value.item()
    return _padded(call, x, numbers(pads) or [], [axis % x.dim() for axis in chosen], fill)


def _padded(call: Call, x: torch.Tensor, pads: list[int], axes: list[int], value: float) -> torch.Tensor:
    """Negative sizes cut; other modes than `constant` pick elements that are there."""
    half, mode = len(pads) // 2, call.get("mode", "constant")
    for position, axis in enumerate(axes):
        before, behind = pads[position], pads[position + half]
        if before == behind == 0:
            continue
        if mode == "constant":
            sizes = [0, 0] * (x.dim() - 1 - axis) + [before, behind]
            x = functional.pad(x, sizes, value=value)
        else:
            x = x.index_select(axis, _picked(mode, x.shape[axis], before, behind).to(x.device))
    return x


def _picked(mode: str, size: int, before: int, behind: int) -> torch.Tensor:
    places = torch.arange(-before, size + behind)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    places = places % period
    return torch.where(places < size, places, period - places)


@operator("CenterCropPad", host=(1,))
def center_crop_pad(call: Call, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    axes = call.integers("axes") or list(range(x.dim()))
    for axis, wanted in zip(axes, numbers(sizes) or [], strict=True):
        along = axis % x.dim()
        excess = x.shape[along] - wanted
        if excess > 0:
            x = x.narrow(along, excess // 2, wanted)
        elif excess < 0:
            before = -excess // 2
            x = functional.pad(x, [0, 0] * (x.dim() - 1 - along) + [before, -excess - before])
    return x


@operator("DepthToSpace")
def depth_to_space(call: Call, x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, C / block^2, H block, W block)."""
    n, channels, height, width = x.shape
    block = call.get("blocksize", 1)
    kept = channels // block**2
    if call.get("mode", "DCR") == "DCR":
        x = x.reshape(n, block, block, kept, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, kept, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, kept, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: torch.Tensor) -> torch.Tensor:
    n, channels, height, width = x.shape
    block = call.get("blocksize", 1)
    x = x.reshape(n, channels, height // block, block, width // block, block)
    order = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.permute(order).reshape(n, channels * block**2, height // block, width // block)


@operator("Trilu", host=(1,))
def trilu(call: Call, x: torch.Tensor, k: torch.Tensor | None = None) -> torch.Tensor:
    diagonal = 0 if k is None else int(k.item())
    return (torch.triu if call.get("upper", 1) else torch.tril)(x, diagonal)


@operator("ReverseSequence", host=(1,))
def reverse_sequence(call: Call, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The first `lengths[i]` steps of sample i in reverse, the others where they are."""
    time, batch = call.get("time_axis", 0), call.get("batch_axis", 1)
    moved = x.movedim((batch, time), (0, 1))
    steps = torch.arange(moved.shape[1])
    ends = lengths.to(torch.int64).unsqueeze(1)
    index = torch.where(steps < ends, ends - 1 - steps, steps).to(x.device)
    rows = torch.arange(moved.shape[0], device=x.device).unsqueeze(1)
    return moved[rows, index].movedim((0, 1), (batch, time))


@operator("Unique")
def unique(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values, where each first stood, where each element went, and how often each occurs."""
    axis = call.get("axis", None)
    rows = x.reshape(-1, 1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1)
    _, inverse, counts = torch.unique(rows, dim=0, sorted=True, return_inverse=True, return_counts=True)
    first = torch.full_like(counts, len(rows)).scatter_reduce(
        0, inverse, torch.arange(len(rows), device=x.device), "amin"
    )
    if not call.get("sorted", 1):
        order = torch.argsort(first)
        first, counts, inverse = first[order], counts[order], torch.argsort(order)[inverse]
    values = x.reshape(-1)[first] if axis is None else x.index_select(axis, first)
    return values, first, inverse, counts
