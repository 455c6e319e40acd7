"""Resampling: Resize and Upsample along one axis after another, and GridSample.

The maps between output and input coordinates and the coefficients are those of the specification:
https://onnx.ai/onnx/operators/onnx__Resize.html
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call, numbers, operator


@dataclass(frozen=True)
class Axis:
    """How one axis is resampled: `size` elements become `count`, at `scale` as the node says or as the sizes imply."""

    size: int
    count: int
    scale: float
    roi: tuple[float, float]


@operator("Upsample", until=8)
def upsample_by_attribute(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _upsampled(call, x, call.get("scales", []))


@operator("Upsample", since=9, host=(1,))
@operator("Resize", until=10, host=(1,))
def upsample(call: Call, x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return _upsampled(call, x, numbers(scales) or [])


def _upsampled(call: Call, x: torch.Tensor, scales: list[float]) -> torch.Tensor:
    """With what later became `asymmetric` and `floor`."""
    legacy = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    legacy["mode"] = call.get("mode", "nearest")
    call = Call("Resize", legacy, call.opset, 1)
    axes = [
        Axis(size, math.floor(size * scale), scale, (0.0, 1.0)) for size, scale in zip(x.shape, scales, strict=True)
    ]
    return _resampled(call, x, list(range(x.dim())), axes)


@operator("Resize", since=11, host=(1, 2, 3))
def resize(
    call: Call,
    x: torch.Tensor,
    roi: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    along = [axis % x.dim() for axis in call.integers("axes") or range(x.dim())]
    factors, wanted, regions = numbers(scales), numbers(sizes), numbers(roi) or []
    crop = call.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    lengths = [x.shape[axis] for axis in along]
    if wanted and along[0] == 0 and wanted[0] * call.growth == x.shape[0]:
        wanted = [x.shape[0], *wanted[1:]]
    if wanted:
        wanted, factors = _fitted(call.get("keep_aspect_ratio_policy", "stretch"), lengths, wanted)
    axes = []
    for position, size in enumerate(lengths):
        region = (regions[position], regions[position + len(along)]) if crop and regions else (0.0, 1.0)
        factor = (factors or [1.0] * len(along))[position]
        count = wanted[position] if wanted else math.floor(size * factor * (region[1] - region[0]))
        axes.append(Axis(size, count, factor, region))
    return _resampled(call, x, along, axes)


def _fitted(policy: str, lengths: list[int], wanted: list[int]) -> tuple[list[int], list[float]]:
    """Sizes and scales; with a policy, one scale for all axes, so that none is larger, or none smaller, than wanted."""
    factors = [want / size for want, size in zip(wanted, lengths, strict=True)]
    if policy == "stretch":
        return wanted, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(factor * size + 0.5) for size in lengths], [factor] * len(lengths)


def _resampled(call: Call, x: torch.Tensor, along: list[int], axes: list[Axis]) -> torch.Tensor:
    """Linear in each axis, so axis by axis: a matrix of coefficients each, or a pick of elements."""
    mode = call.get("mode", "nearest")
    outside = None
    for axis, resampling in zip(along, axes, strict=True):
        if resampling.size == resampling.count and resampling.scale == 1 and resampling.roi == (0.0, 1.0):
            continue
        places = _source_places(call, resampling)
        if mode == "nearest":
            picked = _rounded(call.get("nearest_mode", "round_prefer_floor"), places)
            made = x.index_select(axis, picked.clamp(0, resampling.size - 1).to(x.device))
        else:
            weights = _coefficients(call, mode, resampling, places).to(device=x.device, dtype=x.dtype)
            made = torch.tensordot(x, weights, dims=([axis], [1])).movedim(-1, axis)
        x = made
        if call.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
            beyond = (places < 0) | (places > resampling.size - 1)
            beyond = beyond.reshape([-1 if one == axis else 1 for one in range(x.dim())])
            outside = beyond if outside is None else outside | beyond
    if outside is None:
        return x
    return torch.where(outside.to(x.device), torch.tensor(call.get("extrapolation_value", 0.0), dtype=x.dtype), x)


def _align_corners(places: torch.Tensor, axis: Axis) -> torch.Tensor:
    return places * (axis.size - 1) / (axis.count - 1) if axis.count > 1 else places * 0


def _half_pixel(places: torch.Tensor, axis: Axis) -> torch.Tensor:
    return (places + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(places: torch.Tensor, axis: Axis) -> torch.Tensor:
    return axis.size / 2 * (1 - axis.count / (axis.scale * axis.size)) + _half_pixel(places, axis)


def _crop_and_resize(places: torch.Tensor, axis: Axis) -> torch.Tensor:
    (start, end), last = axis.roi, axis.size - 1
    if axis.count > 1:
        return start * last + places * (end - start) * last / (axis.count - 1)
    return places + 0.5 * (start + end) * last


SOURCES: dict[str, Callable[[torch.Tensor, Axis], torch.Tensor]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda places, axis: places / axis.scale,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda places, axis: _half_pixel(places, axis) if axis.count > 1 else places * 0,
    "tf_crop_and_resize": _crop_and_resize,
    "tf_half_pixel_for_nn": lambda places, axis: (places + 0.5) / axis.scale,
}


def _source_places(call: Call, axis: Axis) -> torch.Tensor:
    """float64 (count): where in the input each output element lies."""
    rule = call.get("coordinate_transformation_mode", "half_pixel")
    return SOURCES[rule](torch.arange(axis.count, dtype=torch.float64), axis)


def _rounded(rule: str, places: torch.Tensor) -> torch.Tensor:
    if rule == "floor":
        return places.floor().to(torch.int64)
    if rule == "ceil":
        return places.ceil().to(torch.int64)
    if rule == "round_prefer_ceil":
        return (places + 0.5).floor().to(torch.int64)
    return (places - 0.5).ceil().to(torch.int64)


def _coefficients(call: Call, mode: str, axis: Axis, places: torch.Tensor) -> torch.Tensor:
    """(count, size): what each output element takes of each input element."""
    stretch = max(1.0, 1.0 / axis.scale) if call.get("antialias", 0) else 1.0
    reach = math.ceil((2 if mode == "cubic" else 1) * stretch) + 1
    near = places.floor().unsqueeze(1) + torch.arange(-reach, reach + 1)
    distance = (near - places.unsqueeze(1)).abs() / stretch
    alpha = call.get("cubic_coeff_a", -0.75)
    weights = cubic(distance, alpha) if mode == "cubic" else (1 - distance).clamp(min=0)
    if call.get("exclude_outside", 0):
        weights = weights * ((near >= 0) & (near <= axis.size - 1))
    weights = weights / weights.sum(dim=1, keepdim=True)
    index = near.clamp(0, axis.size - 1).to(torch.int64)
    return torch.zeros(axis.count, axis.size, dtype=torch.float64).scatter_add(1, index, weights)


def cubic(distance: torch.Tensor, alpha: float) -> torch.Tensor:
    """The kernel of cubic convolution, of distances not below zero."""
    near = ((alpha + 2) * distance - (alpha + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * alpha - 4 * alpha
    zero = torch.zeros_like(distance)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, zero))


@operator("GridSample")
def grid_sample(call: Call, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """`x` (N, C, spatial), `grid` (N, spatial of the output, rank) in [-1, 1], last axis of space first."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = call.get("mode", "linear")
    padding, corners = call.get("padding_mode", "zeros"), bool(call.get("align_corners", 0))
    return functional.grid_sample(x, grid, names.get(mode, mode), padding, corners)


@operator("AffineGrid", host=(1,))
def affine_grid(call: Call, theta: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    return functional.affine_grid(theta, numbers(sizes) or [], bool(call.get("align_corners", 0)))
