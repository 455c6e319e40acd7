"""How operators that take channels in blocks wire what goes through them."""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import integer, operand, text
from worker.engine.structure.wiring import MIXED, Wiring


def group_normalization(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C, ...), scale and shift (C): channels of a group share mean and variance, and are a unit.

    Before opset 21, where it is deprecated, it had a scale a group.
    """
    source = _read(node)
    axes, count = wiring.of(source), (wiring.size(source) or ())[1]
    vectors = [value for value in node.inputs[1:] if value is not None]
    if any(wiring.size(value) != (count,) for value in vectors):
        raise NotImplementedError
    wiring.freeze(source, MIXED, list(range(2, len(axes))))
    channels = axes[1]
    if channels is not None:
        wiring.atoms.unite_rows(channels.reshape(integer(node, "num_groups", 1), -1))
    for value in vectors:
        wiring.tie([(channels, count), (wiring.of(value)[0], count)])
    wiring.axes[node.outputs[0]] = list(axes)


def depth_to_space(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C b^2, H, W) -> (N, C, b H, b W): channels that make one go together.

    They lie C apart where the mode is DCR, side by side where it is CRD.
    """
    source = _read(node)
    batch, channels, *_ = wiring.of(source)
    wiring.freeze(source, MIXED, [2, 3])
    if channels is not None:
        count = integer(node, "blocksize", 1) ** 2
        apart = text(node, "mode", "DCR") == "DCR"
        blocks = channels.reshape(count, -1).T if apart else channels.reshape(-1, count)
        wiring.atoms.unite_rows(blocks)
        channels = blocks[:, 0]
    wiring.axes[node.outputs[0]] = [batch, channels, None, None]


def space_to_depth(node: ir.Node, wiring: Wiring) -> None:
    """X (N, C, b H, b W) -> (N, C b^2, H, W): channels of one lie C apart."""
    source = _read(node)
    batch, channels, *_ = wiring.of(source)
    wiring.freeze(source, MIXED, [2, 3])
    if channels is not None:
        channels = np.tile(channels, integer(node, "blocksize", 1) ** 2)
    wiring.axes[node.outputs[0]] = [batch, channels, None, None]


def _read(node: ir.Node) -> ir.Value:
    value = operand(node, 0)
    if value is None:
        raise NotImplementedError
    return value
