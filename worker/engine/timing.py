"""What passes measure to choose by: kernels by the profiler, files by turns, on the call that speed is told of."""

from collections.abc import Sequence

from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import NodeTime, profile
from worker.engine.turns import Conditions, ratios, take_turns

PROFILE_SECONDS = 2.0
# Below this much a call is overhead, and its kernels take less than the profiler's clock resolves.
LEAST_MILLISECONDS = 0.3


def profiled(model: ModelFile, context: PassContext, seconds: float = PROFILE_SECONDS) -> list[NodeTime]:
    """Times of every kernel, over as many calls as `seconds` allows, two at least.

    Raises:
        ModelFails: the model does not run.

    """
    return profile(model, context.timed_feed(), context.threads, context.scratch, seconds, context.device)


def too_short(times: Sequence[NodeTime]) -> bool:
    """Whether the kernels of a call take too little to choose by."""
    return sum(time.milliseconds for time in times) < LEAST_MILLISECONDS


def times_as_fast(files: Sequence[ModelFile], context: PassContext, rounds: int, seconds: float) -> list[list[float]]:
    """By file, how many times as fast as the first one it is, by round: `rounds`, or as many as `seconds` allow.

    Raises:
        ModelFails: a file does not run.

    """
    conditions = Conditions(context.threads, rounds, seconds, context.device, context.round_seconds)
    feed = context.timed_feed()
    return ratios(take_turns([file.path for file in files], [feed] * len(files), conditions))
