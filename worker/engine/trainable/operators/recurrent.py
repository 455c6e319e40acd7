"""LSTM, GRU and RNN, step by step, with all that ONNX allows: directions, lengths, peepholes, other activations.

https://onnx.ai/onnx/operators/onnx__LSTM.html and its kin have the equations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from worker.engine.trainable.operators.fused_cells import is_usual, unrolled
from worker.engine.trainable.registry import Call, numbers, operator

Activation = Callable[[torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, State], State]
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
ALPHA = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2, "Elu": 1.0, "Affine": 1.0, "ScaledTanh": 1.0}
BETA = {"HardSigmoid": 0.5, "ScaledTanh": 1.0}


def _activation(name: str, alpha: float, beta: float) -> Activation:
    found: dict[str, Activation] = {
        "Affine": lambda x: alpha * x + beta,
        "Elu": lambda x: functional.elu(x, alpha),
        "HardSigmoid": lambda x: torch.clamp(alpha * x + beta, 0, 1),
        "LeakyRelu": lambda x: functional.leaky_relu(x, alpha),
        "Relu": torch.relu,
        "ScaledTanh": lambda x: alpha * torch.tanh(beta * x),
        "Sigmoid": torch.sigmoid,
        "Softplus": functional.softplus,
        "Softsign": functional.softsign,
        "Tanh": torch.tanh,
        "ThresholdedRelu": lambda x: torch.where(x > alpha, x, torch.zeros_like(x)),
    }
    return found[name]


def _activations(call: Call, directions: int) -> list[Activation]:
    """Those of all directions, one after another; parameters are given for the functions that take any, in order."""
    names = call.get("activations", None) or DEFAULTS[call.operator] * directions
    alphas, betas = list(call.get("activation_alpha", [])), list(call.get("activation_beta", []))
    found = []
    for name in (one[0].upper() + one[1:] for one in names):
        alpha = alphas.pop(0) if name in ALPHA and alphas else ALPHA.get(name, 0.0)
        beta = betas.pop(0) if name in BETA and betas else BETA.get(name, 0.0)
        found.append(_activation(name, alpha, beta))
    return found


@dataclass(frozen=True)
class Cell:
    """One direction. `w` (gates, inputs), `r` (gates, hidden), `bias` (2 gates), `peephole` (3 hidden)."""

    call: Call
    w: torch.Tensor
    r: torch.Tensor
    bias: torch.Tensor
    peephole: torch.Tensor | None
    activations: list[Activation]

    @property
    def hidden(self) -> int:
        return int(self.r.shape[1])

    def clipped(self, x: torch.Tensor) -> torch.Tensor:
        limit = self.call.get("clip", 0.0)
        return x.clamp(-limit, limit) if limit else x


def _lstm(cell: Cell, projected: torch.Tensor, state: State) -> State:
    """`projected` (N, gates) is what the input gives to the gates i, o, f, c; the state is (hidden, memory)."""
    before, memory = state
    f, g, h = cell.activations
    gates = projected + before @ cell.r.T + cell.bias[len(cell.bias) // 2 :]
    inner, outer, forget, new = gates.chunk(4, dim=-1)
    peep = (0, 0, 0) if cell.peephole is None else cell.peephole.chunk(3)
    inner = f(cell.clipped(inner + peep[0] * memory))
    forget = 1 - inner if cell.call.get("input_forget", 0) else f(cell.clipped(forget + peep[2] * memory))
    memory = forget * memory + inner * g(cell.clipped(new))
    return f(cell.clipped(outer + peep[1] * memory)) * h(memory), memory


def _gru(cell: Cell, projected: torch.Tensor, state: State) -> State:
    """The gates are z, r, h; `linear_before_reset` says on which side of the product the reset gate stands."""
    (before,) = state
    f, g = cell.activations
    size = cell.hidden
    recurrent = cell.bias[len(cell.bias) // 2 :]
    gates = before @ cell.r[: 2 * size].T + recurrent[: 2 * size] + projected[..., : 2 * size]
    update, reset = f(cell.clipped(gates)).chunk(2, dim=-1)
    if cell.call.get("linear_before_reset", 0):
        new = reset * (before @ cell.r[2 * size :].T + recurrent[2 * size :])
    else:
        new = (reset * before) @ cell.r[2 * size :].T + recurrent[2 * size :]
    return ((1 - update) * g(cell.clipped(projected[..., 2 * size :] + new)) + update * before,)


def _rnn(cell: Cell, projected: torch.Tensor, state: State) -> State:
    (before,) = state
    gates = projected + before @ cell.r.T + cell.bias[len(cell.bias) // 2 :]
    return (cell.activations[0](cell.clipped(gates)),)


CELLS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


@operator("LSTM", "GRU", "RNN", host=(4,))
def recurrent(
    call: Call,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    bias: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    first_hidden: torch.Tensor | None = None,
    first_memory: torch.Tensor | None = None,
    peephole: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """`x` (steps, N, inputs) -> Y (steps, directions, N, hidden), the last states (directions, N, hidden).

    With `layout` 1 the batch comes first everywhere.
    """
    by_sample = bool(call.get("layout", 0))
    x = x.transpose(0, 1) if by_sample else x
    bias = w.new_zeros(w.shape[0], 2 * w.shape[1]) if bias is None else bias
    given = (first_hidden, first_memory)[: 2 if call.operator == "LSTM" else 1]
    first = [_first_states(one, w.shape[0], x.shape[1], r, by_sample) for one in given]
    if is_usual(call, lengths, peephole):
        made, ends = unrolled(call, x, w, r, bias, first)
    else:
        made, ends = _by_direction(call, (x, w, r, bias), first, numbers(lengths), peephole)
    if by_sample:
        return made.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in ends)
    return made, *ends


def _first_states(
    given: torch.Tensor | None, directions: int, rows: int, r: torch.Tensor, by_sample: bool
) -> torch.Tensor:
    """(directions, N, hidden). A file that fixes its batch at one holds states for one sample."""
    if given is None:
        return r.new_zeros(directions, rows, r.shape[2])
    return (given.transpose(0, 1) if by_sample else given).expand(-1, rows, -1).contiguous()


def _by_direction(
    call: Call,
    tensors: tuple[torch.Tensor, ...],
    first: list[torch.Tensor],
    lengths: list[int] | None,
    peephole: torch.Tensor | None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Step by step; `tensors` are the input, both weights and the biases."""
    x, w, r, bias = tensors
    directions = w.shape[0]
    activations = _activations(call, directions)
    share = len(activations) // directions
    outputs, lasts = [], []
    for number in range(directions):
        own = activations[number * share : (number + 1) * share]
        peep = None if peephole is None else peephole[number]
        cell = Cell(call, w[number], r[number], bias[number], peep, own)
        backward = number == 1 or call.get("direction", "forward") == "reverse"
        output, last = _steps(cell, x, tuple(one[number] for one in first), lengths, backward)
        outputs.append(output)
        lasts.append(last)
    return torch.stack(outputs, dim=1), [torch.stack(ends) for ends in zip(*lasts, strict=True)]


def _steps(
    cell: Cell, x: torch.Tensor, state: State, lengths: list[int] | None, backward: bool
) -> tuple[torch.Tensor, State]:
    """Outputs (steps, N, hidden) in the order of the input, and the state behind each sample's own last step."""
    steps, step = x.shape[0], CELLS[cell.call.operator]
    projected = x @ cell.w.T + cell.bias[: len(cell.bias) // 2]
    outputs: list[torch.Tensor] = [torch.empty(0)] * steps
    ends = None if lengths is None else torch.tensor(lengths, device=x.device).unsqueeze(1)
    for index in reversed(range(steps)) if backward else range(steps):
        after = step(cell, projected[index], state)
        if ends is not None:
            running = index < ends
            outputs[index] = torch.where(running, after[0], torch.zeros_like(after[0]))
            after = tuple(torch.where(running, new, old) for new, old in zip(after, state, strict=True))
        else:
            outputs[index] = after[0]
        state = after
    return torch.stack(outputs), state
