"""Pad with zeros over space, then Conv: the convolution pads by itself."""

import numpy as np
import onnx_ir as ir

from worker.engine.nodes import constant, is_operator, rank, text

UNPADDED_AXES = 2


def fold_pad(model: ir.Model) -> int:
    """Only where every reader is a Conv: otherwise the Pad would have to stay."""
    folded = 0
    for node in list(model.graph):
        widths = _zero_padding(node)
        uses = node.outputs[0].uses() if widths is not None else ()
        if widths is None or not uses or node.outputs[0].is_graph_output():
            continue
        readers = [use.node for use in uses if use.idx == 0 and _pads_itself(use.node, model.graph)]
        if len(readers) < len(uses):
            continue
        begin, end = np.split(widths, 2)
        added = [*begin[UNPADDED_AXES:].tolist(), *end[UNPADDED_AXES:].tolist()]
        for reader in readers:
            # VALID says that it pads nothing, whatever `pads` says.
            ignored = text(reader, "auto_pad", "NOTSET") == "VALID"
            own = None if ignored else reader.attributes.get("pads")
            before = list(own.as_ints()) if own is not None else [0] * len(added)
            reader.attributes.pop("auto_pad", None)
            reader.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(before, added, strict=True)])
            reader.replace_input_with(0, node.inputs[0])
        model.graph.remove(node, safe=True)
        folded += 1
    return folded


def _zero_padding(node: ir.Node) -> np.ndarray | None:
    """Widths `(2 * rank,)` of a Pad that adds zeros over space alone."""
    if not is_operator(node, "Pad") or text(node, "mode", "constant") != "constant" or len(node.inputs) < 2:
        return None
    widths, dimensions = constant(node.inputs[1]), rank(node.inputs[0])
    value = node.inputs[2] if len(node.inputs) > 2 else None
    filled = constant(value)
    if widths is None or dimensions is None or (value is not None and (filled is None or np.any(filled != 0))):
        return None
    axes_input = node.inputs[3] if len(node.inputs) > 3 else None
    if axes_input is not None:
        axes = constant(axes_input)
        if axes is None:
            return None
        full = np.zeros(2 * dimensions, np.int64)
        for position, axis in enumerate(axes.tolist()):
            full[axis % dimensions] = widths[position]
            full[axis % dimensions + dimensions] = widths[position + len(axes)]
        widths = full
    begin, end = np.split(widths, 2)
    unpadded = not begin[:UNPADDED_AXES].any() and not end[:UNPADDED_AXES].any()
    return widths if unpadded and dimensions > UNPADDED_AXES and bool((widths >= 0).all()) else None


def _pads_itself(node: ir.Node, graph: ir.Graph) -> bool:
    automatic = text(node, "auto_pad", "NOTSET")
    return node.graph is graph and is_operator(node, "Conv") and automatic in ("NOTSET", "VALID")
