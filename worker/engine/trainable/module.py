"""The torch module that a graph becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from worker.engine.trainable.registry import SAME, Call, Operator

HOST = torch.device("cpu")
NORMALIZATION = "BatchNormalization"


@dataclass(frozen=True)
class Step:
    """One node: what it computes, of which values, into which; and which values nobody reads after it."""

    node: str
    operator: Operator
    attributes: dict[str, Any]
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_reads: tuple[str, ...]
    grows: bool = False
    """A constant of the node's fixes the batch of what it is fed."""

    def run(
        self, arguments: Sequence[torch.Tensor | None], device: torch.device, training: bool, growth: Fraction = SAME
    ) -> list[Any]:
        """The outputs in order. Inputs are brought onto one device, but for those that are read as numbers."""
        call = Call(self.operator.name, self.attributes, self.opset, len(self.outputs), training, device)
        call.growth = growth if self.grows else SAME
        made = self.operator.function(call, *_together(arguments, self.operator.host_inputs))
        return list(made) if isinstance(made, tuple | list) else [made]


class Arithmetic:
    """What happens to values on their way into nodes and out of them: nothing. Subclasses round."""

    def inputs(self, step: Step, values: dict[str, Any]) -> list[torch.Tensor | None]:
        """What the step is fed, from all `values` by name that there are."""
        return [values[name] if name else None for name in step.inputs]

    def outputs(self, _step: Step, made: list[Any]) -> list[Any]:
        """What others read of what the step made."""
        return made


class TrainableGraph(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Feeds and outputs by name, as ONNX Runtime takes and gives them.

    `train()` and `eval()` switch BatchNormalization and Dropout. Parameters and running statistics go by the names of
    the file's constants, dots included: `named_parameters()` gives them, `state` and `load_state` take and set both.

    A file may fix its batch, `fixed_batch` by input; it can be fed another where `batching` finds it may.
    With `frozen_statistics`, BatchNormalization uses its running statistics in `train()` mode too.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        outputs: Sequence[str],
        parameters: Mapping[str, torch.Tensor],
        statistics: Mapping[str, torch.Tensor],
        constants: Mapping[str, torch.Tensor],
        fixed_batch: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.fixed_batch = dict(fixed_batch)
        self.frozen_statistics = False
        self.arithmetic = Arithmetic()
        self.steps = list(steps)
        self.outputs = list(outputs)
        # Not register_parameter: it takes no dots, and the names of the file are not ours to change.
        self._parameters.update({name: nn.Parameter(tensor) for name, tensor in parameters.items()})
        self._buffers.update(statistics)
        self.statistics = list(statistics)
        self.integers = {name: tensor for name, tensor in constants.items() if not tensor.is_floating_point()}
        self._buffers.update({name: tensor for name, tensor in constants.items() if tensor.is_floating_point()})

    def __setattr__(self, name: str, value: Any) -> None:
        # torch would look for `training` among the weights first, and a file may have one of that name.
        object.__setattr__(self, name, value)

    @property
    def device(self) -> torch.device:
        return next((one.device for one in self._parameters.values()), HOST)

    def forward(self, feed: Mapping[str, torch.Tensor], wanted: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """The outputs of the graph, or the values of the names `wanted`, whichever node makes them."""
        device = self.device
        names = self.outputs if wanted is None else list(wanted)
        values: dict[str, Any] = {**self.constants(), **{name: one.to(device) for name, one in feed.items()}}
        kept = {*names}
        growth = self._growth(feed)
        for step in self.steps:
            arguments = self.arithmetic.inputs(step, values)
            frozen = self.frozen_statistics and step.operator.name == NORMALIZATION
            made = self.arithmetic.outputs(step, step.run(arguments, device, self.training and not frozen, growth))
            values.update(zip((name for name in step.outputs), made, strict=False))
            for name in step.last_reads:
                if name not in kept:
                    values.pop(name, None)
        return {name: values[name] for name in names}

    def _growth(self, feed: Mapping[str, torch.Tensor]) -> Fraction:
        sizes = {Fraction(feed[name].shape[0], size) for name, size in self.fixed_batch.items()}
        return sizes.pop() if len(sizes) == 1 else SAME

    def replace(
        self,
        step: Step,
        by: Sequence[Step],
        parameters: Mapping[str, torch.Tensor],
        statistics: Mapping[str, torch.Tensor],
    ) -> None:
        """Compute by other steps what `step` did, with parameters and running statistics that only they read."""
        place = next(number for number, one in enumerate(self.steps) if one is step)
        self.steps[place : place + 1] = by
        self._parameters.update({name: nn.Parameter(tensor) for name, tensor in parameters.items()})
        self._buffers.update(statistics)
        self.statistics.extend(statistics)

    def constants(self) -> dict[str, torch.Tensor]:
        """Every value that no node makes and no caller gives."""
        return {**self.integers, **self._buffers, **self._parameters}

    def held(self) -> dict[str, torch.Tensor]:
        """What training moves, by name: the parameters and running statistics themselves."""
        return {**self._parameters, **{name: self._buffers[name] for name in self.statistics}}

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the parameters and running statistics by name."""
        return {name: one.detach().clone() for name, one in self.held().items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set what `state` took, in place.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs.

        """
        held = self.held()
        if held.keys() != state.keys():
            raise ValueError(f"not the weights of this graph: {sorted(held.keys() ^ state.keys())[:5]}")
        with torch.no_grad():
            for name, tensor in state.items():
                if held[name].shape != tensor.shape:
                    raise ValueError(f"{name!r} is {list(held[name].shape)} here and {list(tensor.shape)} there")
                held[name].copy_(tensor)


def _together(arguments: Sequence[torch.Tensor | None], host: frozenset[int]) -> list[torch.Tensor | None]:
    """All on the device of whichever is not on the CPU, if any; inputs that are read as numbers on the CPU."""
    tensors = [one for position, one in enumerate(arguments) if one is not None and position not in host]
    device = next((one.device for one in tensors if one.device != HOST), HOST)
    placed: list[torch.Tensor | None] = []
    for position, one in enumerate(arguments):
        target = HOST if position in host else device
        placed.append(one if one is None or one.device == target else one.to(target))
    return placed
