"""The table of operators: for each name and range of opsets the function that computes it on torch tensors.

A function takes the `Call` and one argument an input, None where an optional one is absent, and returns a tensor, or a
tuple of them. It is differentiable wherever the operator is. Tensors that hold shapes, axes and the like stay on the
CPU: torch reads them without waiting for a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch

OperatorFunction = Callable[..., Any]
NEWEST = 1_000_000
SAME = Fraction(1)


@dataclass
class Call:
    """What a function is told beside its inputs: the node's attributes and the state of the module."""

    operator: str
    attributes: dict[str, Any]
    opset: int
    outputs: int
    """How many outputs the node names; trailing ones may be absent."""
    training: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    growth: Fraction = SAME
    """How many times the batch that the file names is fed, where the node handles the batch and a constant fixes it."""

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def integers(self, name: str) -> list[int] | None:
        value = self.attributes.get(name)
        return None if value is None else [int(one) for one in value]


@dataclass(frozen=True)
class Operator:
    """One function, for nodes whose opset lies within [since, until]."""

    name: str
    since: int
    until: int
    function: OperatorFunction
    host_inputs: frozenset[int]
    """Inputs that are read as numbers and stay on the CPU."""


class Table:
    """Every operator there is; names outside the standard domain carry it: `com.microsoft.Gelu`."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Operator]] = {}

    def find(self, name: str, opset: int) -> Operator | None:
        """The operator for this opset, or None."""
        fitting = (one for one in self.entries.get(name, []) if one.since <= opset <= one.until)
        return next(fitting, None)

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.entries)


TABLE = Table()


def operator(
    *names: str, since: int = 1, until: int = NEWEST, host: tuple[int, ...] = ()
) -> Callable[[OperatorFunction], OperatorFunction]:
    """Enter a function into the table; `host` are the positions of inputs that stay on the CPU."""

    def enter(function: OperatorFunction) -> OperatorFunction:
        for name in names:
            TABLE.entries.setdefault(name, []).append(Operator(name, since, until, function, frozenset(host)))
        return function

    return enter


def numbers(tensor: torch.Tensor | None) -> list[Any] | None:
    """The elements of a small tensor as Python numbers; None for an absent input."""
    return None if tensor is None else tensor.reshape(-1).tolist()
