"""From a static int8 form to what is delivered: the file under the user's names, and the account of what runs in it."""

from dataclasses import dataclass
from typing import Any

from app.jobs.report import Layer
from worker.engine.int8.fidelity import layer_sqnr_db
from worker.engine.int8.layers import layers_of
from worker.engine.int8.placement import Placement
from worker.engine.int8.sensitivity import account
from worker.engine.int8.static_form import StaticForm
from worker.engine.int8.verification import Executed, computes, fused_unasked, not_fused
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import operator_counts, save_restored
from worker.engine.profiling import NodeTime
from worker.engine.tensor_fidelity import LAYER_SAMPLES
from worker.engine.timing import profiled

VERIFYING_SECONDS = 1.0
RESTORED = 0.6


@dataclass(frozen=True)
class Delivery:
    """`notes` say what ran otherwise than it was planned; `operator_counts` before and after, for the manifest."""

    model: ModelFile
    notes: list[str]
    layers: list[Layer]
    operator_counts: dict[str, Any]


def deliver(form: StaticForm, made: ModelFile, source: ModelFile, context: PassContext) -> Delivery:
    """`made` is the form's placement as a file, with whichever numbers; `source` the model that the pass was given.

    Raises:
        ModelFails: the file does not run.

    """
    result = save_restored(made.load(), source, context.scratch / "result")
    context.progress(RESTORED)
    executed = profiled(result, context, VERIFYING_SECONDS)
    sqnr = layer_sqnr_db(form.prepared, made, form.placement, context, LAYER_SAMPLES)
    counts = {"before": operator_counts(form.prepared.structure()), "after": operator_counts(result.structure())}
    sensitivities, cut_short = account(form.sensitivities_db, form.prepared, form.placement, form.build, context)
    layers = layers_of(form.placement, executed, form.choice.costs.units, sqnr, sensitivities)
    context.progress(1.0)
    return Delivery(result, _verified(form.placement, executed) + cut_short, layers, counts)


def _verified(placement: Placement, executed: list[NodeTime]) -> list[str]:
    """What ran otherwise than it was planned, in words."""
    missed, unasked = not_fused(placement, executed), fused_unasked(placement, executed)
    total = sum(map(computes, placement.in_int8))
    notes = [f"All {total} nodes planned as int8 run as int8."]
    if missed:
        notes = [f"{len(missed)} of {total} nodes planned as int8 run in float here: {_named(missed)}."]
    if total < len(placement.in_int8):
        notes[0] += f" {len(placement.in_int8) - total} between them only move values."
    if unasked:
        notes.append(f"{len(unasked)} nodes planned in float run in int8 between two that do: {_named(unasked)}.")
    return notes


def _named(kernels: list[Executed]) -> str:
    return ", ".join(f"{one.name} as {one.operator}" for one in kernels[:5])
