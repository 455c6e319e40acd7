"""Arithmetic, comparison, logic and bits, element by element, shapes broadcast as numpy does."""

import functools
from typing import Any

import torch

from worker.engine.trainable.arrays import torch_type
from worker.engine.trainable.registry import Call, operator

UNARY = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # halves to even, as ONNX has it
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
BINARY = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


def _enter_tables() -> None:
    for name, function in UNARY.items():
        operator(name)(lambda _call, x, function=function: function(x))
    for name, function in BINARY.items():
        operator(name)(lambda _call, a, b, function=function: function(a, b))


_enter_tables()


@operator("Identity")
def identity(_call: Call, x: torch.Tensor) -> torch.Tensor:
    return x


@operator("Div")
def div(_call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Integers are divided towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@operator("Mod")
def mod(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """With the sign of the divisor, or of the dividend where `fmod` says so."""
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def power(_call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """In the base's dtype. A square is written as one: its derivative needs no logarithm."""
    if b.numel() == 1 and not b.requires_grad and b.device.type == "cpu":
        made = torch.pow(a, b.item())
        return made.to(a.dtype).broadcast_to(torch.broadcast_shapes(a.shape, b.shape))
    return torch.pow(a, b).to(a.dtype)


@operator("Max", "Min", "Sum", "Mean")
def variadic(call: Call, *tensors: torch.Tensor) -> torch.Tensor:
    steps: dict[str, Any] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add, "Mean": torch.add}
    made = functools.reduce(steps[call.operator], tensors)
    return made / len(tensors) if call.operator == "Mean" else made


@operator("Clip", until=10)
def clip_by_attributes(call: Call, x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x, call.get("min", None), call.get("max", None)) if call.attributes else x


@operator("Clip", since=11)
def clip(
    _call: Call, x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    """Where the bounds cross, the upper one holds."""
    return x if low is None and high is None else torch.clamp(x, low, high)


@operator("Cast")
def cast(call: Call, x: torch.Tensor) -> torch.Tensor:
    return converted(x, torch_type(call.get("to", 1)))


@operator("CastLike")
def cast_like(_call: Call, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return converted(x, like.dtype)


def converted(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Towards zero into integers, those that are too large for a byte modulo 256."""
    if x.is_floating_point() and dtype in (torch.uint8, torch.int8, torch.int16):
        return x.to(torch.int64).to(dtype)
    return x.to(dtype)


@operator("BitCast")
def bit_cast(call: Call, x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch_type(call.get("to", 1)))


@operator("BitShift")
def bit_shift(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    shift = torch.bitwise_left_shift if call.get("direction", "LEFT") == "LEFT" else torch.bitwise_right_shift
    return shift(a, b)


@operator("IsInf")
def is_inf(call: Call, x: torch.Tensor) -> torch.Tensor:
    found = torch.isinf(x)
    if not call.get("detect_negative", 1):
        found = found & (x > 0)
    return found if call.get("detect_positive", 1) else found & (x < 0)


@operator("Where")
def where(_call: Call, condition: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(condition, a, b)
