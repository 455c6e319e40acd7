"""Constant nodes become initializers, where whatever reads a prepared graph looks for constants."""

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass


def lift_constants(model: ir.Model) -> int:
    """Every Constant node, those of subgraphs included, but for one that is an output itself."""
    before = sum(1 for _ in model.graph.all_nodes())
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return before - sum(1 for _ in model.graph.all_nodes())
