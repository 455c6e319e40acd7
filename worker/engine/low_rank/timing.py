"""Where factors are faster: kernels by the profiler, where they stand; the whole file by turns."""

from collections.abc import Mapping, Sequence

from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.places import Place
from worker.engine.low_rank.plan import Plan
from worker.engine.low_rank.writing import factor_names
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import NodeTime, origin_of, profile
from worker.engine.turns import Conditions, ratios, take_turns

PROFILE_SECONDS, TURNS_SECONDS, ROUNDS = 2.0, 8.0, 7
MEASURING_SECONDS = 2 * PROFILE_SECONDS + TURNS_SECONDS
# Below this much a call is overhead, and its kernels take less than the profiler's clock resolves.
LEAST_MILLISECONDS = 0.3


def profiled(model: ModelFile, context: PassContext) -> list[NodeTime]:
    """
    Raises:
        ModelFails: the model does not run.

    """
    feed = context.timed_feed()
    return profile(model, feed, context.threads, context.scratch, PROFILE_SECONDS, context.device)


def place_times(places: list[Place], times: list[NodeTime]) -> dict[str, float]:
    """Milliseconds of the kernel that stands for each node, by its name; none where the profile shows none."""
    found = {}
    for place in places:
        names = {origin_of(one or "") for one in (place.name, place.product.node.outputs[0].name)}
        milliseconds = sum(time.milliseconds for time in times if time.origin in names)
        if milliseconds > 0:
            found[place.name] = milliseconds
    return found


def factor_times(factored: ModelFile, chosen: Mapping[str, Shape], times: list[NodeTime]) -> dict[str, float]:
    """Milliseconds of all factors of a node together, by the node that they stand for."""
    outputs = {node.name: node.output[0] for node in factored.structure().graph.node}
    found = {}
    for name, shape in chosen.items():
        factors = factor_names(name, shape.form)
        names = {origin_of(one) for one in [*factors, *(outputs[factor] for factor in factors)]}
        found[name] = sum(time.milliseconds for time in times if time.origin in names)
    return found


def timed_by_turns(plan: Plan, files: Sequence[ModelFile], context: PassContext) -> list[list[float]]:
    """How many times as fast as the model as it was each file is, a round each.

    Raises:
        ModelFails: a file does not run.

    """
    paths = [plan.model.path, *(file.path for file in files)]
    conditions = Conditions(context.threads, ROUNDS, TURNS_SECONDS, context.device)
    return ratios(take_turns(paths, [context.timed_feed()] * len(paths), conditions))[1:]
