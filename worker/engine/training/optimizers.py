"""The optimizer of a training, and its state as named tensors."""

from collections.abc import Container, Mapping
from typing import Any

import torch

from app.recipes.training import TrainingOptions

MATRIX_AXES = 2


def is_matrix(tensor: torch.Tensor) -> bool:
    """Two axes or more that are longer than 1: no bias, scale or norm."""
    return sum(int(size > 1) for size in tensor.shape) >= MATRIX_AXES


def build(
    options: TrainingOptions,
    tensors: Mapping[str, torch.Tensor],
    rates: Mapping[str, float],
    undecayed: Container[str] = (),
) -> Any:
    """AdamW (Loshchilov & Hutter, https://arxiv.org/abs/1711.05101) or SGD with Nesterov's momentum.

    Weights decay; biases, norms and scales do not, nor does what `undecayed` names, whatever its shape. `rates`: by
    name a share of the learning rate, 1 by default.
    """
    groups: dict[tuple[bool, float], list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            decays = is_matrix(tensor) and name not in undecayed
            groups.setdefault((decays, rates.get(name, 1.0)), []).append(tensor)
    listed = [
        {"params": members, "weight_decay": options.decay if decays else 0.0, "share": share}
        for (decays, share), members in groups.items()
    ]
    rate = options.highest_rate
    if options.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=rate)
    return torch.optim.SGD(listed, lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)


def set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def state_of(optimizer: Any) -> dict[str, torch.Tensor]:
    """By `number/name`, numbers counting parameters over all groups."""
    return {
        f"{number}/{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def load_state(optimizer: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Set what `state_of` gave."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        number, name = key.split("/", 1)
        found.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})
