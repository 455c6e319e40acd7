"""As many units as it takes to be so much faster: files are cut and timed, not estimated."""

import shutil
import statistics
from dataclasses import dataclass, field

from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.structure.cutting import cut
from worker.engine.structure.groups import Structure
from worker.engine.structure.importance import Scores
from worker.engine.structure.selection import Choice, Limits, Macs, by_macs
from worker.engine.timing import times_as_fast

ROUNDS, SECONDS = 7, 6.0
TRIALS = 6
# Nearer to the target than this is within what the clock can tell.
NEAR = 0.02
MISSED = "None of them reaches it: this is the fastest."


@dataclass(frozen=True)
class Timed:
    """`ratios` by trial: share of the multiply-accumulates asked for, and time of a call over the original's."""

    choice: Choice
    notes: list[str] = field(default_factory=list)
    ratios: list[list[float]] = field(default_factory=list)


def by_latency(
    original: ModelFile,
    model: ModelFile,
    structure: Structure,
    scores: Scores,
    macs: Macs,
    wanted: float,
    limits: Limits,
    context: PassContext,
) -> Timed:
    """The file that loses least and takes at most `wanted` of the original's time; the fastest where none does.

    `model` is what is cut: the original, or what is left of it without some blocks.

    Raises:
        ModelFails: a cut file does not run.

    """
    low, high, tried = 0.0, 1.0, list[tuple[float, float, Choice]]()
    share = wanted
    for number in range(TRIALS):
        choice = by_macs(structure, scores, macs, share, limits)
        tried.append((_ratio(original, model, structure, choice, context, number), share, choice))
        found = tried[-1][0]
        if abs(found - wanted) <= NEAR and found <= wanted:
            break
        low, high = (share, high) if found <= wanted else (low, share)
        share = (low + high) / 2
        if context.lacks(2 * SECONDS):
            break
    enough = [one for one in tried if one[0] <= wanted]
    ratio, _, choice = max(enough, key=lambda one: one[1]) if enough else min(tried, key=lambda one: one[0])
    words = f"A call takes {ratio:.2f} of the original's time, {wanted:.2f} was asked for ({len(tried)} files timed)."
    return Timed(
        choice,
        [words if enough else f"{words} {MISSED}"],
        [[round(share, 4), round(found, 4)] for found, share, _ in tried],
    )


def _ratio(
    original: ModelFile, model: ModelFile, structure: Structure, choice: Choice, context: PassContext, number: int
) -> float:
    made = cut(model, structure, choice.gone(structure), context.scratch / f"timed-{number}")
    found = time_ratio(original, made, context)
    shutil.rmtree(made.path.parent)
    return found


def time_ratio(original: ModelFile, made: ModelFile, context: PassContext) -> float:
    """Median over rounds of the time of a call, as a share of the original's in the same round.

    Raises:
        ModelFails: a file does not run.

    """
    return 1 / statistics.median(times_as_fast([original, made], context, ROUNDS, SECONDS)[1])
