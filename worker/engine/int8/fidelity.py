"""How much of the original is left in a quantized file layer by layer."""

import numpy as np
import onnx_ir as ir

from worker.engine.calibration.observing import FLOAT, element_counts, exposed_calls
from worker.engine.fidelity import Power
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition
from worker.engine.int8.units import Role, Unit
from worker.engine.model_file import ModelFile
from worker.engine.moments.reading import within_memory
from worker.engine.nodes import is_operator
from worker.engine.pass_contract import PassContext

# Of all tensors that a call hands out together: 128 MiB of each model.
EXPOSED_ELEMENTS = 32 << 20


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
    chosen = np.arange(min(samples, context.feeds.sample_count))
    counts = element_counts(prepared, inside.values(), context)
    powers = {name: Power() for name in inside}
    for group in within_memory(inside, lambda name: counts[inside[name]], EXPOSED_ELEMENTS):
        floats = dict.fromkeys((inside[name] for name in group), FLOAT)
        integers = dict.fromkeys((counterparts[name] for name in group), FLOAT)
        exact_calls = exposed_calls(prepared, floats, context, chosen, "layers-float")
        made_calls = exposed_calls(made, integers, context, chosen, "layers-int8")
        for exact, rounded in zip(exact_calls, made_calls, strict=True):
            for name in group:
                powers[name].add(exact[inside[name]], rounded[counterparts[name]])
    return {name: power.db for name, power in powers.items()}


def _observed(unit: Unit) -> ir.Value:
    """What comes out of a unit, its bias added where that is a node of its own."""
    add = bias_addition(unit) if is_operator(unit.node, "MatMul") and unit.role is Role.WEIGHTED else None
    return unit.output if add is None else add.outputs[0]
