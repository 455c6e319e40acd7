"""Activation functions, and Dropout."""

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call, numbers, operator

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
SOFTMAX = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}


@operator("Relu")
def relu(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


@operator("Sigmoid")
def sigmoid(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@operator("Tanh")
def tanh(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x)


@operator("LeakyRelu")
def leaky_relu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(_call: Call, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.celu(x, call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: torch.Tensor) -> torch.Tensor:
    alpha, gamma = call.get("alpha", SELU_ALPHA), call.get("gamma", SELU_GAMMA)
    return gamma * functional.elu(x, alpha)


@operator("Gelu")
def gelu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate=call.get("approximate", "none"))


@operator("Swish")
def swish(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.0) * x)


@operator("SwiGLU")
def swi_glu(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return swish(call, a) * b


@operator("Mish")
def mish(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.mish(x)


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(call.get("alpha", 0.2) * x + call.get("beta", 0.5), 0, 1)


@operator("HardSwish")
def hard_swish(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.hardswish(x)


@operator("Softplus")
def softplus(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.softplus(x)


@operator("Softsign")
def softsign(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return functional.softsign(x)


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > call.get("alpha", 1.0), x, torch.zeros((), dtype=x.dtype, device=x.device))


@operator("Shrink")
def shrink(call: Call, x: torch.Tensor) -> torch.Tensor:
    bias, threshold = call.get("bias", 0.0), call.get("lambd", 0.5)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, zero)).to(x.dtype)


@operator("Softmax", "LogSoftmax", since=13)
def softmax(call: Call, x: torch.Tensor) -> torch.Tensor:
    return SOFTMAX[call.operator](x, call.get("axis", -1))


@operator("Softmax", "LogSoftmax", until=12)
def softmax_of_matrix(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Over all axes from `axis` on, as of one matrix."""
    return SOFTMAX[call.operator](as_matrix(x, call.get("axis", 1)), 1).reshape(x.shape)


@operator("Hardmax", since=13)
def hardmax(call: Call, x: torch.Tensor) -> torch.Tensor:
    axis = call.get("axis", -1)
    made = torch.zeros_like(x)
    return made.scatter_(axis, first_extreme(x, axis, largest=True).unsqueeze(axis), 1)


@operator("Hardmax", until=12)
def hardmax_of_matrix(call: Call, x: torch.Tensor) -> torch.Tensor:
    matrix = as_matrix(x, call.get("axis", 1))
    made = torch.zeros_like(matrix)
    return made.scatter_(1, first_extreme(matrix, 1, largest=True).unsqueeze(1), 1).reshape(x.shape)


def as_matrix(x: torch.Tensor, axis: int) -> torch.Tensor:
    """(rows, columns): the axes before `axis`, and the others."""
    axis = axis + x.dim() if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, 0)


def first_extreme(x: torch.Tensor, axis: int, *, largest: bool) -> torch.Tensor:
    """int64 index of the largest or smallest element along an axis, the first of equal ones, without the axis."""
    return (torch.argmax if largest else torch.argmin)(x, dim=axis)


@operator("Dropout", until=11)
def dropout_by_attribute(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return dropped(call, x, call.get("ratio", 0.5))


@operator("Dropout", since=12, host=(1, 2))
def dropout(
    call: Call, x: torch.Tensor, ratio: torch.Tensor | None = None, _training: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """The module's mode decides, not the node's: a file exported either way trains with it and is judged without."""
    found = numbers(ratio)
    return dropped(call, x, found[0] if found else 0.5)


def dropped(call: Call, x: torch.Tensor, ratio: float) -> tuple[torch.Tensor, ...]:
    """The output, scaled by 1 / (1 - ratio) where elements are dropped, and the mask of those that are kept."""
    keep = torch.ones(x.shape, dtype=torch.bool, device=x.device)
    if not call.training or ratio == 0:
        return x, keep
    keep = torch.rand(x.shape, device=x.device) >= ratio
    return x * keep.to(x.dtype) / (1 - ratio), keep
