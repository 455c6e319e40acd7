"""Pooling over windows and over all of space, and its reverse."""

import torch
from torch.nn import functional

from worker.engine.trainable.operators.windows import Windows, padded, windows_of
from worker.engine.trainable.registry import Call, numbers, operator

MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@operator("MaxPool")
def max_pool(call: Call, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """(N, C, spatial) -> the same with fewer; the indices, where asked for, count over the whole input."""
    windows = windows_of(call, x, call.integers("kernel_shape") or [])
    dtype, rank = x.dtype, x.dim() - 2
    values = x if x.is_floating_point() else x.to(torch.float64)
    values = padded(values, windows, float("-inf"), extra=True)
    arguments = (values, windows.kernel, windows.strides, 0, windows.dilations)
    if call.outputs == 1:
        return _cut(MAX_POOL[rank](*arguments), windows).to(dtype)
    found, indices = MAX_POOL[rank](*arguments, return_indices=True)
    places = _unpadded(_cut(indices, windows), windows, list(values.shape[2:]), x.shape, call.get("storage_order", 0))
    return _cut(found, windows).to(dtype), places


def _cut(x: torch.Tensor, windows: Windows) -> torch.Tensor:
    """Without the windows that are too many: padding may leave room for one more."""
    for axis, count in enumerate(windows.outputs):
        x = x.narrow(axis + 2, 0, count)
    return x


def _unpadded(
    indices: torch.Tensor, windows: Windows, sizes: list[int], shape: torch.Size, column_major: int
) -> torch.Tensor:
    """Indices within one padded channel of these sizes, as indices into the whole input of this shape."""
    coordinates: list[torch.Tensor] = []
    rest = indices
    for size, begin in zip(reversed(sizes), reversed(windows.begin), strict=True):
        coordinates.insert(0, rest % size - begin)
        rest = rest // size
    axes = list(range(len(sizes)))
    flat = torch.zeros_like(indices)
    for axis in reversed(axes) if column_major else axes:
        flat = flat * shape[axis + 2] + coordinates[axis]
    planes = torch.arange(shape[0] * shape[1], device=indices.device).reshape(shape[0], shape[1], *[1] * len(axes))
    return flat + planes * shape[2:].numel()


@operator("AveragePool")
def average_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    """(N, C, spatial) -> the same with fewer; padding counts where `count_include_pad` says so."""
    windows = windows_of(call, x, call.integers("kernel_shape") or [])
    sums = summed(x, windows)
    if not windows.is_padded:
        return sums / torch.Size(windows.kernel).numel()
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if call.get("count_include_pad", 0):
        counted = torch.ones_like(padded(counted, windows))
        bare = [0] * len(windows.kernel)
        windows = Windows(
            windows.kernel, windows.strides, windows.dilations, bare, bare, windows.outputs, windows.extra
        )
    return sums / summed(counted, windows)


def summed(x: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The sum over each window."""
    rank = len(windows.kernel)
    values = padded(x, windows, extra=True)
    area = torch.Size(windows.kernel).numel()
    if all(step == 1 for step in windows.dilations):
        made = AVERAGE_POOL[rank](values, windows.kernel, windows.strides) * area
    else:
        ones = torch.ones(1, 1, *windows.kernel, dtype=x.dtype, device=x.device)
        planes = values.reshape(-1, 1, *values.shape[2:])
        made = CONV[rank](planes, ones, None, windows.strides, 0, windows.dilations)
        made = made.reshape(*x.shape[:2], *made.shape[2:])
    return _cut(made, windows)


@operator("LpPool")
def lp_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    windows = windows_of(call, x, call.integers("kernel_shape") or [])
    p = call.get("p", 2)
    return summed(x.abs() ** p, windows) ** (1 / p)


@operator("GlobalAveragePool")
def global_average_pool(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=_space(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.amax(dim=_space(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: torch.Tensor) -> torch.Tensor:
    p = call.get("p", 2)
    return (x.abs() ** p).sum(dim=_space(x), keepdim=True) ** (1 / p)


def _space(x: torch.Tensor) -> list[int]:
    return list(range(2, x.dim()))


@operator("MaxUnpool", host=(2,))
def max_unpool(
    call: Call, x: torch.Tensor, indices: torch.Tensor, output_shape: torch.Tensor | None = None
) -> torch.Tensor:
    """Each element back to where MaxPool found it, zeros elsewhere."""
    kernel = call.integers("kernel_shape") or []
    rank = len(kernel)
    strides, pads = call.integers("strides") or [1] * rank, call.integers("pads") or [0] * (2 * rank)
    spatial = [
        (size - 1) * strides[axis] + kernel[axis] - pads[axis] - pads[axis + rank]
        for axis, size in enumerate(x.shape[2:])
    ]
    shape = torch.Size([*x.shape[:2], *spatial])
    made = x.new_zeros(shape.numel()).scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(shape)
    wanted = numbers(output_shape)
    if wanted is None:
        return made
    more = [size for want, have in zip(reversed(wanted), reversed(shape), strict=True) for size in (0, want - have)]
    return functional.pad(made, more)
