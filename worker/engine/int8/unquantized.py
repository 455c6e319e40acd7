"""What is delivered where nothing runs in int8: the model, or the graph made ready for it where that is faster."""

import statistics
from dataclasses import dataclass
from typing import Literal

from worker.engine.graph import computes_the_same
from worker.engine.int8.choosing import LEAST_MILLISECONDS, NOISE, ROUNDS, TURNS_SECONDS
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import Preparation, save_restored
from worker.engine.turns import Conditions, ratios, take_turns

GLANCE_SECONDS = 0.02
UNCHANGED = "Nothing was quantized; the model is unchanged."
Wanted = Literal["measured", "prepared", "original"]


@dataclass(frozen=True)
class Unquantized:
    """`settled` is what a recipe would ask for to get the same again."""

    model: ModelFile
    modified: bool
    note: str
    settled: Wanted


def without_int8(preparation: Preparation, source: ModelFile, wanted: Wanted, context: PassContext) -> Unquantized:
    """Files are timed where that is asked for, there is time, and a call takes long enough.

    Raises:
        ModelFails: a file does not run.

    """
    speed = _speed(preparation, source, context) if wanted == "measured" else None
    if wanted != "prepared" and (speed is None or speed <= NOISE):
        return Unquantized(source, False, UNCHANGED, "original")
    made = save_restored(preparation.model.load(), source, context.scratch / "result")
    gain = f", {speed:.2f} times as fast here," if speed is not None else ""
    note = f"Nothing was quantized; the graph made ready for it{gain} is kept: it answers alike."
    return Unquantized(made, True, note, "prepared")


def _speed(preparation: Preparation, source: ModelFile, context: PassContext) -> float | None:
    """How many times as fast the graph is once it is made ready; None where nothing was, or nothing can be measured."""
    prepared = preparation.model
    if computes_the_same(source.structure(), prepared.structure()) or context.lacks(TURNS_SECONDS):
        return None
    feed = context.timed_feed()
    [first] = take_turns([source.path], [feed], Conditions(context.threads, 1, GLANCE_SECONDS, context.device))
    if first.medians[0] < LEAST_MILLISECONDS:
        return None
    conditions = Conditions(context.threads, ROUNDS, TURNS_SECONDS, context.device)
    timings = take_turns([source.path, prepared.path], [feed] * 2, conditions)
    return statistics.median(ratios(timings)[1])
