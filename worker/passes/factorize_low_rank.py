"""Weights as products of smaller ones, fitted to what they are fed; kept where that pays.

SVD of W S, S S^T the second moments of the input (`worker.engine.low_rank.decomposition`), for MatMul and Gemm; of
convolutions k x k to r channels and 1 x 1, k x 1 and 1 x k, or 1 x 1, k x k and 1 x 1 (`worker.engine.low_rank.forms`).
Ranks are chosen so that the noise that a floor allows buys most; then files are timed by turns, and factors stay only
where they are faster, or, where that is asked for, smaller. They are written into the user's own graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.recipes.factorization import FactorizeLowRank, GivenFactors
from worker.engine.fidelity import Answers, Floor
from worker.engine.graph_file import read_graph
from worker.engine.kinds import is_quantized
from worker.engine.low_rank import account
from worker.engine.low_rank.forms import Shape, fits, shape_of, shapes_of
from worker.engine.low_rank.offers import Costs, options_by_rule
from worker.engine.low_rank.places import Found, Place, find_places
from worker.engine.low_rank.plan import Plan, Samples, fit, read_inputs, samples_needed
from worker.engine.low_rank.refitting import refit_last
from worker.engine.low_rank.searching import Trial, Workbench
from worker.engine.low_rank.settling import NO_TIME, Settled, settle
from worker.engine.low_rank.timing import MEASURING_SECONDS, place_times
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import normalise, save_restored, unknown_nodes
from worker.engine.random_input import RANDOM_SOURCE
from worker.engine.timing import LEAST_MILLISECONDS, profiled, too_short

RANK_STEP = {"latency": 16, "size": 1}
READ, SETTLED = 0.4, 0.9
ROUNDED_MS = 5

NOT_TRAINED = "No time was left to train: the weights were factored and not trained."


@dataclass
class Work:
    """One run of the pass. `model` is the user's, its nodes named; `reasons` say by node why it stays as it is."""

    model: ModelFile
    places: list[Place]
    """Whose inputs are read: the same with `given` as without, as rows are drawn for all of them together."""
    shapes: dict[str, list[Shape]]
    reasons: dict[str, str]
    notes: list[str]
    costs: Costs


def apply(model: ModelFile, config: FactorizeLowRank, context: PassContext) -> PassResult:
    """Notes say what was factored, what it gained and lost, and what stays and why; the manifest holds every choice."""
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model computes in 8 bits already: nothing was factored."])
    named = normalise(model, context.scratch / "named")
    found = find_places(read_graph(named), config.operators, config.exclude)
    work = _work(named, found, config)
    nothing = _nothing_to_do(work, config, context)
    if nothing is not None:
        notes = [*work.notes, *account.left_in_words(work.reasons), nothing]
        return PassResult(model, False, notes, {"replay": _pinned(config, None, config.calibration_samples)})
    context.phase("reading")
    most = min(config.calibration_samples, Samples.of(context).fitted)
    samples = samples_needed(named, work.places, context, most)
    plan = Plan(named, fit(read_inputs(named, work.places, context, samples), work.shapes))
    spoiled = [name for name, offered in work.shapes.items() if offered and name not in plan.factorings]
    work.reasons |= dict.fromkeys(spoiled, account.NOT_FINITE_INPUT)
    context.progress(READ)
    context.check_time("factoring")
    context.phase("factoring")
    settled = _settled(work, plan, config, context, samples)
    context.progress(SETTLED)
    return _result(model, work, plan, settled, config, context, samples)


def _work(named: ModelFile, found: Found, config: FactorizeLowRank) -> Work:
    notes = unknown_nodes(config.exclude, named.structure())
    step = RANK_STEP[config.objective]
    shapes = {
        place.name: [shape for shape in shapes_of(place, step) if shape.form in config.forms] for place in found.places
    }
    reasons = found.reasons | {name: account.TOO_SMALL for name, offered in shapes.items() if not offered}
    if config.given is not None:
        given, missing = _given(config.given, found.places)
        read = [place for place in found.places if shapes[place.name] or place.name in given]
        if missing:
            notes.append(f"`given` names nodes that cannot be factored so: {', '.join(missing[:10])}.")
        rest = dict.fromkeys(shapes.keys() - given.keys(), account.NOT_GIVEN) | reasons
        reasons = {name: reason for name, reason in rest.items() if name not in given}
        return Work(named, read, given, reasons, notes, Costs())
    read = [place for place in found.places if shapes[place.name]]
    return Work(named, read, shapes, reasons, notes, Costs())


def _given(given: list[GivenFactors], places: list[Place]) -> tuple[dict[str, list[Shape]], list[str]]:
    """One shape a node, and the nodes that cannot have theirs."""
    by_name = {place.name: place for place in places}
    shapes: dict[str, list[Shape]] = {}
    for one in given:
        place, ranks = by_name.get(one.node), tuple(one.ranks)
        if place is not None and fits(place, one.form, ranks):
            shapes[one.node] = [shape_of(place, one.form, ranks)]
    return shapes, sorted({one.node for one in given} - shapes.keys())


def _nothing_to_do(work: Work, config: FactorizeLowRank, context: PassContext) -> str | None:
    """Why nothing can be factored, where that is known before any data is read; else times are known afterwards."""
    if not any(work.shapes.values()):
        return "No weight can be factored with a gain: nothing was changed."
    if config.objective == "size" or config.given is not None:
        return None
    if context.lacks(MEASURING_SECONDS):
        return NO_TIME
    context.phase("measuring")
    times = profiled(work.model, context)
    if too_short(times):
        return (
            f"A call's kernels take less than {LEAST_MILLISECONDS} ms: no gain could be measured, and nothing was "
            "factored. `objective` `size` does without."
        )
    work.costs.times_ms = place_times(work.places, times)
    for name in [name for name, offered in work.shapes.items() if offered and name not in work.costs.times_ms]:
        work.shapes[name] = []
        work.reasons[name] = account.NOT_PROFILED
    return None if any(work.shapes.values()) else "No weight can be factored with a gain: nothing was changed."


def _settled(work: Work, plan: Plan, config: FactorizeLowRank, context: PassContext, samples: int) -> Settled:
    answers = Answers.of(work.model, context, Samples.of(context).judged)
    random = context.feeds.source == RANDOM_SOURCE
    bench = Workbench(plan, context, answers, samples if config.refit and not random else 0)
    if config.given is not None:
        return Settled(_as_given(plan, bench))
    options = options_by_rule(plan.factorings, config.energy, config.ratio, work.costs)
    if not options:
        return Settled(None, ["No rank that is worth while is one that `energy` or `ratio` asks for."])
    floor = Floor.of(config.fidelity_floor_db, context.max_drop)
    return settle(options, work.costs, floor, bench, config.energy is not None or config.ratio is not None)


def _as_given(plan: Plan, bench: Workbench) -> Trial | None:
    chosen = {name: factoring.options[0].shape for name, factoring in plan.factorings.items()}
    if not chosen:
        return None
    trial = bench.judge(chosen, None, 0.0)
    if not bench.fitted:
        return trial
    return bench.judge(chosen, refit_last(plan, trial.model, chosen, bench.context, bench.fitted), 0.0)


def _result(
    model: ModelFile,
    work: Work,
    plan: Plan,
    settled: Settled,
    config: FactorizeLowRank,
    context: PassContext,
    samples: int,
) -> PassResult:
    trial = settled.trial
    chosen: Mapping[str, Shape] = trial.chosen if trial is not None else {}
    reasons = work.reasons | {name: account.NOT_CHOSEN for name in plan.factorings if name not in chosen}
    manifest: dict[str, Any] = {
        "ratios": [[round(value, 4) for value in ratios] for ratios in settled.ratios],
        "kernel_ms": {name: round(value, ROUNDED_MS) for name, value in settled.times_ms.items()},
        "felt": {name: float(f"{value:.4g}") for name, value in settled.felt.items()},
        "replay": _pinned(config, trial, samples),
    }
    notes = [*account.source_in_words(context, samples), *settled.notes, *work.notes, *account.left_in_words(reasons)]
    if trial is None:
        layers = account.layers_of(plan, {}, reasons, work.costs.times_ms or {}, {}, {})
        return PassResult(model, False, [*notes, "Nothing was changed."], manifest, layers)
    result = save_restored(trial.model.load(), model, context.scratch / "result")
    notes = [*account.in_words(plan, trial), *notes]
    if config.training is not None:
        # Here and not above: factoring does without torch.
        from worker.engine.training.learning import learn_behind  # noqa: PLC0415

        context.checkpoints.settle(manifest["replay"])
        result = learn_behind(result, context.original or model, config.training, context, notes, manifest, NOT_TRAINED)
    kept = account.outputs_sqnr_db(plan, chosen, result, context)
    layers = account.layers_of(plan, chosen, reasons, work.costs.times_ms or {}, settled.times_ms, kept)
    context.progress(1.0)
    return PassResult(result, True, notes, manifest, layers)


def _pinned(config: FactorizeLowRank, trial: Trial | None, samples: int) -> dict[str, Any]:
    """The arguments that repeat this run's choices without measuring anything."""
    given = [
        {"node": name, "form": shape.form, "ranks": list(shape.ranks)}
        for name, shape in (trial.chosen.items() if trial is not None else ())
    ]
    pinned = {
        "given": given,
        "refit": trial is not None and trial.last is not None,
        "calibration_samples": samples,
    }
    return config.model_dump(mode="json", by_alias=True) | pinned
