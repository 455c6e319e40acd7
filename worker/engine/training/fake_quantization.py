"""Rounding with gradients: Learned Step Size Quantization (S. Esser et al., ICLR 2020, arXiv:1902.08153).

    v^ = s clip(round(v / s), lowest, highest)
    dL/dv = dL/dv^ inside the range, 0 beyond it                                                    (equation 5)
    dL/ds = g sum dL/dv^ (round(v / s) - v / s inside, lowest or highest beyond)                     (equation 3)

with g = 1 / sqrt(n highest) for n values that share s (section 2.2). Codes of which 0 is none are signs; their gradient
passes as it is (S. Zhou et al., DoReFa-Net, arXiv:1606.06160, equation 8).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Rounds:
    """To which integers: `lowest` to `highest`. `balance` is g, by which the gradient of a scale is multiplied, as a
    number or of the scale's shape. `limit` changes codes once they are rounded.
    """

    lowest: int
    highest: int
    balance: torch.Tensor | float
    has_zero: bool = True
    limit: Callable[[torch.Tensor], torch.Tensor] | None = None


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: torch.Tensor, rounds: Rounds) -> torch.Tensor:
        codes = _codes(values, scale, rounds)
        ctx.save_for_backward(values, scale, codes)
        ctx.rounds = rounds
        return codes * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, scale, codes = ctx.saved_tensors
        rounds: Rounds = ctx.rounds
        if rounds.has_zero:
            real = values / scale
            inside = (real >= rounds.lowest) & (real <= rounds.highest)
            of_values, by_scale = gradient * inside, torch.where(inside, codes - real, codes)
        else:
            of_values, by_scale = gradient, codes
        of_scale = (gradient * by_scale).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        return of_values, None if of_scale is None else of_scale * rounds.balance, None


class _StraightThrough(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    @staticmethod
    def forward(_ctx: Any, _values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def fake_quantize(values: torch.Tensor, scale: torch.Tensor, rounds: Rounds) -> torch.Tensor:
    """float32 of the shape of `values`, on the grid of `scale`, which broadcasts against them."""
    made: torch.Tensor = _FakeQuantize.apply(values, scale, rounds)
    return made


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded`, with the gradient of `values`."""
    made: torch.Tensor = _StraightThrough.apply(values, rounded)
    return made


def _codes(values: torch.Tensor, scale: torch.Tensor, rounds: Rounds) -> torch.Tensor:
    """As float32. torch rounds half to even, as QuantizeLinear does."""
    if not rounds.has_zero:
        return torch.where(values >= 0, float(rounds.highest), float(rounds.lowest))
    codes = torch.round(values / scale).clamp_(rounds.lowest, rounds.highest)
    return codes if rounds.limit is None else rounds.limit(codes)
