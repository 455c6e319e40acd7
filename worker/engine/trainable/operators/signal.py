"""Fourier transforms, and the windows that go with them."""

import math

import torch

from worker.engine.trainable.arrays import torch_type
from worker.engine.trainable.registry import Call, numbers, operator

# Coefficients of the cosine series of each window.
WINDOWS = {
    "BlackmanWindow": (0.42, -0.5, 0.08),
    "HammingWindow": (25 / 46, -21 / 46, 0.0),
    "HannWindow": (0.5, -0.5, 0.0),
}


@operator(*WINDOWS, host=(0,))
def window(call: Call, size: torch.Tensor) -> torch.Tensor:
    """(size), periodic unless the node says otherwise; on the CPU."""
    count = int(size.item())
    angles = torch.arange(count, dtype=torch.float64) * 2 * math.pi / (count if call.get("periodic", 1) else count - 1)
    flat, first, second = WINDOWS[call.operator]
    made = flat + first * torch.cos(angles) + second * torch.cos(2 * angles)
    return made.to(torch_type(call.get("output_datatype", 1)))


@operator("DFT", until=19, host=(1,))
def dft_by_attribute(call: Call, x: torch.Tensor, length: torch.Tensor | None = None) -> torch.Tensor:
    return _transformed(call, x, length, call.get("axis", 1))


@operator("DFT", since=20, host=(1, 2))
def dft(
    call: Call, x: torch.Tensor, length: torch.Tensor | None = None, axis: torch.Tensor | None = None
) -> torch.Tensor:
    return _transformed(call, x, length, -2 if axis is None else int(axis.item()))


def _transformed(call: Call, x: torch.Tensor, length: torch.Tensor | None, axis: int) -> torch.Tensor:
    """The last axis holds real and imaginary part, or the real part alone."""
    along = axis % x.dim()
    count = x.shape[along] if length is None else int(length.reshape(()).item())
    one_sided, inverse = call.get("onesided", 0), call.get("inverse", 0)
    if one_sided and inverse:
        count = (x.shape[along] - 1) * 2 if length is None else count
        return torch.fft.irfft(_complex(x), count, dim=along).unsqueeze(-1)
    if one_sided:
        return torch.view_as_real(torch.fft.rfft(x[..., 0], count, dim=along))
    return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(_complex(x), count, dim=along))


def _complex(x: torch.Tensor) -> torch.Tensor:
    return torch.complex(x[..., 0], x[..., 1] if x.shape[-1] == 2 else torch.zeros_like(x[..., 0]))


@operator("STFT", host=(1, 3))
def stft(
    call: Call,
    signal: torch.Tensor,
    step: torch.Tensor,
    weights: torch.Tensor | None = None,
    length: torch.Tensor | None = None,
) -> torch.Tensor:
    """`signal` (N, length, 1 or 2) -> (N, frames, frequencies, 2)."""
    found = numbers(length)
    size = found[0] if found else len(weights) if weights is not None else signal.shape[1]
    frames = signal.unfold(1, size, int(step.item())).movedim(-1, 2)
    frames = frames if weights is None else frames * weights.unsqueeze(1)
    if call.get("onesided", 1):
        return torch.view_as_real(torch.fft.rfft(frames[..., 0], dim=2))
    return torch.view_as_real(torch.fft.fft(_complex(frames), dim=2))
