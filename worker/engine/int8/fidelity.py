"""How much of the original is left in a quantized file: at its outputs, layer by layer, and which layer lost it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.evaluation.metrics import looks_like_scores
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import bias_addition
from worker.engine.int8.units import Role, Unit
from worker.engine.model_file import ModelFile
from worker.engine.nodes import is_operator
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import open_session, run_session

# More than this stands for no noise at all.
LARGEST_DB = 200.0
LARGEST_SHARE_OF_TIME = 1 / 3


@dataclass
class Power:
    """Sums of squares of a signal and of what differs from it."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: np.ndarray, made: np.ndarray) -> None:
        exact, made = exact.astype(np.float64), made.astype(np.float64)
        if np.isfinite(exact).all():
            self.signal += float(np.square(exact).sum())
            self.noise += float(np.square(np.nan_to_num(made - exact, posinf=1e150, neginf=-1e150)).sum())

    @property
    def db(self) -> float:
        """Signal to quantization noise ratio, dB."""
        if self.noise == 0 or self.signal == 0:
            return LARGEST_DB if self.noise == 0 else -LARGEST_DB
        return float(np.clip(10 * np.log10(self.signal / self.noise), -LARGEST_DB, LARGEST_DB))


@dataclass(frozen=True)
class Fidelity:
    """`sqnr_db` is that of the worst output; `agreement` the share of samples with the same top class, where classes
    are what the outputs hold.
    """

    sqnr_db: float
    agreement: float | None

    def holds(self, floor_db: float, least_agreement: float | None) -> bool:
        enough = least_agreement is None or self.agreement is None or self.agreement >= least_agreement
        return enough and self.sqnr_db >= floor_db


def measure_fidelity(original: ModelFile, made: ModelFile, context: PassContext, samples: int) -> Fidelity:
    """Both files on the first `samples` calls of the context's data.

    Raises:
        ModelFails: a call fails.

    """
    chosen = np.arange(min(samples, context.feeds.sample_count))
    session = open_session(original.path, context.threads)
    expected = [run_session(session, call.feed) for call in context.feeds.calls(1, chosen)]
    del session
    session = open_session(made.path, context.threads)
    powers: dict[int, Power] = {}
    same: list[bool] = []
    for call, exact in zip(context.feeds.calls(1, chosen), expected, strict=True):
        for index, (left, right) in enumerate(zip(exact, run_session(session, call.feed), strict=True)):
            if isinstance(left, np.ndarray) and left.dtype.kind == "f":
                powers.setdefault(index, Power()).add(left, right)
                if looks_like_scores(left):
                    same.extend((left.argmax(axis=1) == right.argmax(axis=1)).tolist())
    worst = min((power.db for power in powers.values()), default=LARGEST_DB)
    return Fidelity(worst, sum(same) / len(same) if same else None)


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
    powers = {name: Power() for name in inside}
    exact_calls = exposed_calls(prepared, dict.fromkeys(inside.values(), FLOAT), context, chosen, "layers-float")
    made_calls = exposed_calls(made, dict.fromkeys(counterparts.values(), FLOAT), context, chosen, "layers-int8")
    for exact, rounded in zip(exact_calls, made_calls, strict=True):
        for name, power in powers.items():
            power.add(exact[inside[name]], rounded[counterparts[name]])
    return {name: power.db for name, power in powers.items()}


def _observed(unit: Unit) -> ir.Value:
    """What comes out of a unit, its bias added where that is a node of its own."""
    add = bias_addition(unit) if is_operator(unit.node, "MatMul") and unit.role is Role.WEIGHTED else None
    return unit.output if add is None else add.outputs[0]


def sensitivities_db(
    prepared: ModelFile,
    placement: Placement,
    build: Callable[[Placement, Path], ModelFile],
    context: PassContext,
    samples: int,
) -> dict[str, float]:
    """SQNR at the model's outputs with one unit alone in int8, by name: low is sensitive.

    Takes a third of the time that is left at most: what comes after needs the rest.
    """
    found: dict[str, float] = {}
    started, allowed = time.monotonic(), context.seconds_left() * LARGEST_SHARE_OF_TIME
    for number, unit in enumerate(placement.in_int8):
        alone = Placement(placement.units, frozenset([unit.name]))
        if time.monotonic() - started > allowed:
            break
        file = build(alone, context.scratch / f"alone-{number}")
        found[unit.name] = measure_fidelity(prepared, file, context, samples).sqnr_db
        for path in file.files():
            path.unlink()
    return found


def most_sensitive_first(sensitivities: dict[str, float]) -> Iterable[str]:
    """Names from the most to the least sensitive; equals by name."""
    return sorted(sensitivities, key=lambda name: (sensitivities[name], name))
