"""How much of the original is left in a quantized file layer by layer."""

import onnx_ir as ir

from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition
from worker.engine.int8.units import Role, Unit
from worker.engine.model_file import ModelFile
from worker.engine.nodes import is_operator
from worker.engine.pass_contract import PassContext
from worker.engine.tensor_fidelity import Tensor, tensor_sqnr_db


def layer_sqnr_db(
    prepared: ModelFile, made: ModelFile, placement: Placement, context: PassContext, samples: int
) -> dict[str, float]:
    """SQNR at the output of every unit in int8, by name: what was lost up to there."""
    nodes = made.structure().graph.node
    behind = {node.input[0]: node.output[0] for node in nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    inside, counterparts = {}, {}
    for unit in placement.in_int8:
        value = _observed(unit)
        name = value.name or ""
        # An output of the model goes by its own name even where 8 bits made it.
        moved = value in placement.made_in_int8 and not value.is_graph_output()
        inside[unit.name] = name
        counterparts[unit.name] = behind[behind[name]] if moved else name
    pairs = {name: (Tensor(inside[name]), Tensor(counterparts[name])) for name in inside}
    return tensor_sqnr_db(prepared, made, pairs, context, samples)


def _observed(unit: Unit) -> ir.Value:
    """What comes out of a unit, its bias added where that is a node of its own."""
    add = bias_addition(unit) if is_operator(unit.node, "MatMul") and unit.role is Role.WEIGHTED else None
    return unit.output if add is None else add.outputs[0]
