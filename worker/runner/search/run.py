"""An `auto` job: search, measure the front once more, accept on samples of their own, deliver."""

import time
from dataclasses import replace
from pathlib import Path

from app.recipes.request import USUAL_CONFIDENCE, Metric, OptimizeRequest
from worker.engine.evaluation.acceptance import likely_drop
from worker.engine.faults import UserFault
from worker.engine.pass_contract import PassContext
from worker.engine.processor import instruction_sets
from worker.engine.search.front import as_good, finalists, pareto_front
from worker.engine.search.ground import WITH_VNNI, Ground, shares
from worker.engine.search.proposals import ORIGINAL, Trial
from worker.engine.structure.removal import Subject as Removable
from worker.runner.artifacts import candidate_stem, write_artifact, write_extras
from worker.runner.chain import Outcome
from worker.runner.contract import RunnerJob, RunnerResult
from worker.runner.deployment import checked
from worker.runner.events import Events
from worker.runner.job_data import check_metric
from worker.runner.measuring import Subject
from worker.runner.opening import OpenJob, open_job
from worker.runner.search.accepting import Bound, Delivered, choose_winner, measure_finalists, original_as_finalist
from worker.runner.search.best import BestSoFar
from worker.runner.search.data import SearchData, load_search_data
from worker.runner.search.delivery import Ending, delivered
from worker.runner.search.findings import Findings
from worker.runner.search.identity import identity_of
from worker.runner.search.searching import CHECKING, Found, Searcher
from worker.runner.search.stock import Stock
from worker.runner.search.trying import Bench
from worker.runner.search.workshop import Workshop

# Shares of the work at which each stage ends.
PREPARED, BASELINE, SEARCHED, EXAMINED = 0.02, 0.06, 0.85, 0.95

UNCHECKED = (
    "The original is delivered as it was uploaded: the deployment check, which is of what a pass made, was left out."
)


def run(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    """The delivered files lie in `workdir/outputs/`, the winner's first.

    Raises:
        UserFault: the model or data cannot be used, or the original itself does not run.

    """
    started = time.monotonic()
    opened = _settled(open_job(job, workdir, events))
    data = load_search_data(job, opened.request, opened.model, workdir, opened.scratch)
    opened.pacing.span(PREPARED, BASELINE)
    opened.pacing.phase("baseline")
    choosing = opened.laboratory(data.selecting, "choosing")
    original = choosing.examine(opened.model)
    metric = opened.metric
    warnings = [*data.accepting.warnings, *check_metric(metric, data.accepting, original.footprint.outputs)]
    bound = _bound(opened.request, metric)
    circumstances = opened.circumstances(data.accepting, metric)
    stock = _stock(opened, circumstances.max_drop)
    workshop = Workshop(replace(circumstances, findings=Findings(stock)), stock)
    ground = _ground(opened, data, original)
    weights = opened.request.weights
    likely = likely_drop(str(metric.name), bound.allowed, bound.confidence, data.accepting.evaluation.sample_count)
    bench = Bench(workshop, choosing, original, metric, bound.allowed, likely, weights, ground.measuring_seconds)
    best = BestSoFar(workdir, opened.name, weights, events)
    found = Searcher(bench, ground, opened.request, opened.pacing, (BASELINE, SEARCHED), best).run()
    ending = _checked(_concluded(opened, data, original, bound, found, warnings))
    for warning in ending.warnings:
        events.log(warning, "warning")
    return delivered(replace(ending, seconds=time.monotonic() - started))


def _concluded(
    opened: OpenJob, data: SearchData, original: Subject, bound: Bound, found: Found, warnings: list[str]
) -> Ending:
    """The front measured in one run, and its best accepted on samples of their own."""
    weights = opened.request.weights
    opened.pacing.span(SEARCHED, EXAMINED)
    opened.pacing.phase("evaluating")
    judging = opened.laboratory(data.accepting, "accepting", bound.confidence)
    chosen = finalists(found.trials, weights, bound.allowed)
    ready = [_written(trial, found.outcomes[trial.name], opened) for trial in chosen]
    checking = CHECKING * opened.pacing.budget_seconds if opened.request.deployment_check else 0.0
    counts = bool(weights.memory)
    turn, final = measure_finalists(judging, original, ready, bound, warnings, checking, memory_counts=counts)
    gaining = [one for one in final if one.gains(weights)]
    choice = choose_winner(gaining, weights, bound, held_out=data.accepting.held_out)
    first = winner = choice.winner
    if first is None:
        untouched = _written(ORIGINAL, Outcome(opened.model), opened)
        first = original_as_finalist(judging, original, untouched, turn, bound, warnings)
    better = [one.final for one in final if not as_good(ORIGINAL, one.final)]
    front = {one.name for one in pareto_front(better)}
    # Who gave the recipes wants to see what became of them, whatever is better.
    given = bool(opened.request.search and opened.request.search.given)
    others = [one for one in final if one is not winner and (given or one.delivered.trial.name in front)]
    rest = sorted(others, key=lambda one: -one.trial.ratios.gain(weights))
    return Ending(
        opened=opened,
        data=data,
        bound=bound,
        weights=weights,
        original=original,
        turn=turn,
        found=found,
        finalists=[first, *rest],
        measured=final,
        accepted=winner is not None,
        tested=choice.tested,
        front=frozenset(front),
        warnings=warnings,
        seconds=0.0,
    )


def _checked(ending: Ending) -> Ending:
    """With the deployment check of the winner, where one is asked for; the original needs none."""
    if not ending.accepted:
        if ending.opened.request.deployment_check:
            ending.warnings.append(UNCHECKED)
        return ending
    opened, winner = ending.opened, ending.finalists[0]
    laboratory = opened.laboratory(ending.data.accepting, "checking")
    opened.pacing.span(EXAMINED, 1.0)
    found = checked(opened.request, laboratory, ending.original, winner.subject, opened.job.threads)
    return replace(ending, deployment=found)


def _settled(opened: OpenJob) -> OpenJob:
    """With what a search is held to where the request does not say."""
    request = opened.request
    return replace(opened, request=request.model_copy(update={"contract": request.searched_contract}))


def _bound(request: OptimizeRequest, metric: Metric) -> Bound:
    contract = request.searched_contract
    return Bound(metric, contract.largest_drop(str(metric.name)), contract.confidence or USUAL_CONFIDENCE)


def _stock(opened: OpenJob, max_drop: float | None) -> Stock:
    job = opened.job
    identity = identity_of(opened, max_drop)
    return Stock(identity, opened.workdir, opened.scratch, dict(job.pieces), job.piece_bytes, opened.pacing.events)


def _ground(opened: OpenJob, data: SearchData, original: Subject) -> Ground:
    of_time = shares(original.kernels.kernels.by_operator)
    training = data.accepting.training
    return Ground(
        call_seconds=original.footprint.call_ms / 1e3 / max(1, data.accepting.batch),
        load_seconds=original.footprint.load_ms / 1e3,
        size_bytes=original.size_bytes,
        convolution_share=of_time["convolutions"],
        product_share=of_time["products"],
        calibration_samples=data.accepting.calibration.sample_count,
        selection_samples=data.selecting.evaluation.sample_count,
        training_samples=training.feeds.sample_count if training else 0,
        has_vnni=bool(WITH_VNNI & set(instruction_sets())),
        device=opened.device,
        left_without_blocks=_left_without_blocks(opened, data) if training else 1.0,
    )


def _left_without_blocks(opened: OpenJob, data: SearchData) -> float:
    feeds, scratch = data.accepting.calibration, opened.scratch / "blocks"
    scratch.mkdir()
    try:
        return Removable.of(opened.model, PassContext(scratch, feeds, 0, opened.threads), ()).left_without_blocks
    except UserFault:  # it runs, and was measured; not with all that it computes handed out
        return 1.0


def _written(trial: Trial, outcome: Outcome, opened: OpenJob) -> Delivered:
    """The candidate's files in the output folder, under a name that no other candidate has."""
    stem = candidate_stem(opened.name, trial.name, [step.pass_ for step in outcome.steps])
    artifact = write_artifact(outcome.model, stem, opened.workdir)
    return Delivered(trial, outcome, artifact, write_extras(outcome.extras, stem, opened.workdir))
