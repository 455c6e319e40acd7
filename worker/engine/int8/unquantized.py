"""What is delivered where nothing runs in int8: the model, or the graph made ready for it where that is faster."""

import statistics
from dataclasses import dataclass
from typing import Literal

from worker.engine.graph import computes_the_same
from worker.engine.int8.choosing import ROUNDS, TURNS_SECONDS
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import Preparation, save_restored
from worker.engine.profiling import NodeTime
from worker.engine.timing import profiled, times_as_fast, too_short
from worker.engine.turns import is_faster

GLANCE_SECONDS = 0.02
UNCHANGED = "Nothing was quantized; the model is unchanged."
Wanted = Literal["measured", "prepared", "original"]


@dataclass(frozen=True)
class Unquantized:
    """`executed` are the kernels that the file runs; `settled` is what a recipe would ask for to get the same again."""

    model: ModelFile
    modified: bool
    note: str
    executed: list[NodeTime]
    settled: Wanted


def without_int8(preparation: Preparation, source: ModelFile, wanted: Wanted, context: PassContext) -> Unquantized:
    """Files are timed where that is asked for, there is time, and a call takes long enough.

    Raises:
        ModelFails: a file does not run.

    """
    executed = [] if wanted == "prepared" else profiled(source, context, GLANCE_SECONDS)
    measured = _measured(preparation, source, executed, context) if wanted == "measured" else []
    if wanted != "prepared" and not is_faster(measured):
        return Unquantized(source, False, UNCHANGED, executed, "original")
    made = save_restored(preparation.model.load(), source, context.scratch / "result")
    gain = f", {statistics.median(measured):.2f} times as fast here," if measured else ""
    note = f"Nothing was quantized; the graph made ready for it{gain} is kept: it answers alike."
    return Unquantized(made, True, note, profiled(made, context, GLANCE_SECONDS), "prepared")


def _measured(
    preparation: Preparation, source: ModelFile, executed: list[NodeTime], context: PassContext
) -> list[float]:
    """How many times as fast the graph is once it is made ready, by round; empty where nothing was, or nothing can be
    measured. `executed` are the kernels of the source.
    """
    prepared = preparation.model
    if computes_the_same(source.structure(), prepared.structure()) or context.lacks(TURNS_SECONDS):
        return []
    if too_short(executed):
        return []
    return times_as_fast([source, prepared], context, ROUNDS, TURNS_SECONDS)[1]
