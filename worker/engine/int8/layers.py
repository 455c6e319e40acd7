"""The account of a quantization, node by node."""

from collections.abc import Mapping

from app.jobs.report import Layer
from worker.engine.int8.placement import Placement
from worker.engine.profiling import NodeTime, as_executed, kernels_by_origin


def layers_of(
    placement: Placement,
    executed: list[NodeTime],
    measured: Mapping[str, tuple[float, float]],
    sqnr_db: Mapping[str, float],
    sensitivities_db: Mapping[str, float],
) -> list[Layer]:
    """One a unit, in the order of the graph. `measured` holds milliseconds in float and in int8, by unit."""
    kernels = kernels_by_origin(executed)
    found = []
    for unit in placement.units:
        ran = [time for name in dict.fromkeys(unit.kernel_names) for time in kernels.get(name, [])]
        operators, milliseconds = as_executed(ran)
        in_int8 = unit.name in placement.quantized
        float_ms, int8_ms = measured.get(unit.name, (None, None))
        found.append(
            Layer(
                name=unit.name,
                operator=unit.node.op_type,
                planned="int8" if in_int8 else "float",
                reason=None if in_int8 else placement.reasons.get(unit.name, "nothing around it runs in int8"),
                executed=operators,
                executed_ms=milliseconds,
                float_ms=float_ms,
                int8_ms=int8_ms,
                sqnr_db=sqnr_db.get(unit.name),
                sensitivity_db=sensitivities_db.get(unit.name),
            )
        )
    return found
