"""Normalizations, over a batch, a layer, an instance, a group or neighbouring channels."""

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call, operator


@operator("BatchNormalization")
def batch_normalization(
    call: Call,
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """`x` (N, C, ...), the others (C). In training the batch's own statistics, and the running ones are updated.

    What ONNX calls momentum is the share of the old statistics that is kept. A node that is exported in training mode
    uses the batch's statistics always.
    """
    epsilon, momentum = call.get("epsilon", 1e-5), call.get("momentum", 0.9)
    if not call.get("training_mode", 0):
        if not call.training:
            return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
        return functional.batch_norm(x, mean, variance, scale, bias, True, 1 - momentum, epsilon)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    now_mean, now_variance = x.mean(dim=axes), x.var(dim=axes, unbiased=False)
    made = functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    running = mean * momentum + now_mean * (1 - momentum), variance * momentum + now_variance * (1 - momentum)
    return (made, *(one.detach() for one in running))


@operator("LayerNormalization")
def layer_normalization(
    call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Over all axes from `axis` on; with the mean and the inverse standard deviation where asked for."""
    axes, epsilon = _last_axes(call, x), call.get("epsilon", 1e-5)
    shape = x.shape[axes[0] :]
    if call.outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    mean = x.mean(dim=axes, keepdim=True)
    inverse = torch.rsqrt(x.var(dim=axes, keepdim=True, unbiased=False) + epsilon)
    made = (x - mean) * inverse * scale
    return (made if bias is None else made + bias, mean, inverse)[: call.outputs]


@operator("RMSNormalization")
def rms_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    square = x.pow(2).mean(dim=_last_axes(call, x), keepdim=True)
    return x * torch.rsqrt(square + call.get("epsilon", 1e-5)) * scale


def _last_axes(call: Call, x: torch.Tensor) -> list[int]:
    axis = call.get("axis", -1)
    return list(range(axis + x.dim() if axis < 0 else axis, x.dim()))


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`x` (N, C, spatial), `scale` and `bias` (C): each channel of each sample by itself."""
    axes = list(range(2, x.dim()))
    made = _standardized(x, axes, call.get("epsilon", 1e-5))
    return made * by_channel(scale, x) + by_channel(bias, x)


@operator("GroupNormalization")
def group_normalization(call: Call, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`scale` and `bias` are (C) from opset 21 on, (groups) before."""
    groups = call.get("num_groups", 1)
    grouped = x.reshape(x.shape[0], groups, -1)
    made = _standardized(grouped, [2], call.get("epsilon", 1e-5)).reshape(x.shape)
    if scale.numel() == groups != x.shape[1]:
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return made * by_channel(scale, x) + by_channel(bias, x)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: torch.Tensor) -> torch.Tensor:
    axes = call.integers("axes") or [0, 2, 3]
    centred = x - x.mean(dim=axes, keepdim=True)
    return centred / (centred.pow(2).mean(dim=axes, keepdim=True).sqrt() + 1e-9)


@operator("LpNormalization")
def lp_normalization(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Zero stays zero."""
    norm = torch.linalg.vector_norm(x, call.get("p", 2), dim=call.get("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("LRN")
def local_response_normalization(call: Call, x: torch.Tensor) -> torch.Tensor:
    """By the squares of the channels around each: (size - 1) // 2 before it and the rest behind."""
    size = call.get("size", 1)
    before = (size - 1) // 2
    squares = functional.pad(x.pow(2).movedim(1, -1), [before, size - 1 - before])
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * sums) ** call.get("beta", 0.75)


def _standardized(x: torch.Tensor, axes: list[int], epsilon: float) -> torch.Tensor:
    centred = x - x.mean(dim=axes, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(dim=axes, keepdim=True) + epsilon)


def by_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(C) as (1, C, 1, ...), of the rank of `x`."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
