"""LSTM, GRU and RNN in their usual form, by torch's own fused loops: several times faster than step by step."""

import torch

from worker.engine.trainable.registry import Call

# Where torch's gates stand among ONNX's: i f g o among i o f c, and r z n among z r h.
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
LOOPS = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}
UNUSUAL = ("activations", "activation_alpha", "activation_beta", "clip", "input_forget")


def is_usual(call: Call, lengths: torch.Tensor | None, peephole: torch.Tensor | None) -> bool:
    """Whether torch has the form that the node asks for."""
    if lengths is not None or peephole is not None or any(name in call.attributes for name in UNUSUAL):
        return False
    if call.operator == "GRU" and not call.get("linear_before_reset", 0):
        return False
    return bool(call.get("direction", "forward") != "reverse")


def unrolled(
    call: Call,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    bias: torch.Tensor,
    first: list[torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs (steps, directions, N, hidden), and the last states (directions, N, hidden).

    `x` (steps, N, inputs), `w` (directions, gates, inputs), `r` (directions, gates, hidden), `bias` (directions,
    2 gates), `first` as the last states.
    """
    weights = []
    for number in range(w.shape[0]):
        inner, outer = bias[number].chunk(2)
        weights += [_ordered(call, one) for one in (w[number], r[number], inner, outer)]
    states = tuple(first) if call.operator == "LSTM" else first[0]
    # cuDNN goes back through nothing that it was not told to train; without dropout the answers are the same.
    trains = x.is_cuda and torch.is_grad_enabled()
    made, *last = LOOPS[call.operator](x, states, weights, True, 1, 0.0, trains, w.shape[0] == 2, False)
    return made.unflatten(2, (w.shape[0], -1)).transpose(1, 2), last


def _ordered(call: Call, gates: torch.Tensor) -> torch.Tensor:
    parts = gates.chunk(len(GATES[call.operator]))
    return torch.cat([parts[place] for place in GATES[call.operator]])
