"""An optimization job: measure the original, run the recipe, measure what came out beside it, judge."""

from dataclasses import dataclass
from pathlib import Path

from app.jobs.report import Candidate, Deployment, Report
from app.recipes.request import Metric, OptimizeRequest
from worker.engine.evaluation.requests import ComparisonAnswer, TurnsAnswer
from worker.runner.artifacts import Artifact, artifact_stem, marked_slower, write_artifact, write_extras, write_manifest
from worker.runner.causes import Evidence, find_causes
from worker.runner.chain import Outcome, run_chain
from worker.runner.contract import RunnerJob, RunnerResult
from worker.runner.deployment import checked
from worker.runner.events import Events
from worker.runner.job_data import JobData, check_metric, load_data
from worker.runner.manifest import Account, build_manifest
from worker.runner.measuring import Subject, noise_warnings
from worker.runner.opening import open_job
from worker.runner.step_files import Ends, files_between, with_files
from worker.runner.summary import environment_of, summary_of
from worker.runner.verdict import is_slower, judge, with_speed

# Shares of the work at which each stage ends.
PREPARED, BASELINE, OPTIMIZED, EXAMINED, TIMED, COMPARED, CHECKED = 0.03, 0.12, 0.5, 0.6, 0.8, 0.88, 0.95


@dataclass(frozen=True)
class Results:
    """Everything done and measured."""

    metric: Metric
    data: JobData
    outcome: Outcome
    artifact: Artifact
    extras: list[Artifact]
    baseline: Subject
    candidate: Subject
    turns: TurnsAnswer
    compared: ComparisonAnswer
    warnings: list[str]
    deployment: Deployment | None = None


def run(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    """The delivered files lie in `workdir/outputs/`.

    Raises:
        UserFault: the model or data cannot be used, or time or memory ran out before there was a model to deliver.

    """
    opened = open_job(job, workdir, events)
    request, model, pacing, scratch = opened.request, opened.model, opened.pacing, opened.scratch
    data = load_data(job, request, model, workdir, scratch)
    laboratory = opened.laboratory(data, "measuring", request.confidence)

    pacing.span(PREPARED, BASELINE)
    pacing.phase("baseline")
    baseline = laboratory.examine(model)
    metric = opened.metric
    warnings = [*data.warnings, *check_metric(metric, data, baseline.footprint.outputs)]

    outcome = run_chain(model, request.passes, opened.circumstances(data, metric), (BASELINE, OPTIMIZED))
    stem = artifact_stem(opened.name, [step.pass_ for step in outcome.steps])
    artifact = write_artifact(outcome.model, stem, workdir)
    extras = write_extras(outcome.extras, stem, workdir)

    pacing.span(OPTIMIZED, EXAMINED)
    pacing.phase("evaluating")
    candidate = laboratory.examine(artifact.model)
    pacing.span(EXAMINED, TIMED)
    turns = laboratory.take_turns([model, artifact.model])
    pacing.span(TIMED, COMPARED if files_between(outcome) or request.deployment_check else 1.0)
    call_ms = baseline.footprint.call_ms + candidate.footprint.call_ms
    compared = laboratory.compare(model, artifact.model, metric, call_ms)
    warnings.extend([*outcome.warnings, *compared.warnings, *noise_warnings(turns)])
    for warning in warnings:
        events.log(warning, "warning")
    pacing.span(COMPARED, CHECKED if files_between(outcome) else 1.0)
    deployment = checked(request, laboratory, baseline, candidate, job.threads)
    pacing.span(CHECKED, 1.0)
    outcome.steps = with_files(outcome, Ends(baseline, candidate, turns, compared, warnings), laboratory, metric)
    results = Results(
        metric, data, outcome, artifact, extras, baseline, candidate, turns, compared, warnings, deployment
    )
    return _result(job, request, results, workdir)


def _result(job: RunnerJob, request: OptimizeRequest, results: Results, workdir: Path) -> RunnerResult:
    turns, compared = results.turns, results.compared
    delivered = [results.artifact, *results.extras]
    if is_slower(turns.ratios[1]):
        delivered = [marked_slower(one) for one in delivered]
    artifact, *extras = [{"file_name": one.file.file_name, "sha256": one.sha256} for one in delivered]
    speeds = [calls * results.data.batch for calls in turns.calls_per_second]
    before = results.baseline.measurement(turns.latencies[0], speeds[0], compared.original)
    after = results.candidate.measurement(turns.latencies[1], speeds[1], compared.candidate)
    passes = [step.pass_ for step in results.outcome.steps]
    causes = find_causes(_evidence(request, results))
    verdict = with_speed(judge(request, results.metric, compared, results.data, causes), turns.ratios[1])
    medians = dict(zip(("original", "optimized"), (one.round_medians_ms for one in turns.latencies), strict=True))
    recipe = [step.parameters for step in results.outcome.steps]
    account = Account(results.metric, recipe, results.outcome.manifests, medians, artifact, extras)
    manifest = build_manifest(job, request, account)
    candidate = Candidate(
        name="+".join(passes),
        recipe=passes,
        **artifact,
        measurement=after,
        latency_ratio=turns.ratios[1],
    )
    report = Report(
        baseline=before,
        candidates=[candidate],
        steps=results.outcome.steps,
        verdict=verdict,
        environment=environment_of(request, results.data),
        data=results.data.words,
        warnings=results.warnings,
        deployment=results.deployment,
        manifest=manifest,
    )
    return RunnerResult(
        outcome="succeeded",
        artifacts=[*(one.file for one in delivered), write_manifest(manifest, workdir)],
        report=report,
        verdict=verdict,
        summary=summary_of(before, candidate, results.metric, compared),
    )


def _evidence(request: OptimizeRequest, results: Results) -> Evidence:
    return Evidence(
        request=request,
        data=results.data,
        steps=results.outcome.steps,
        baseline=results.baseline,
        candidate=results.candidate,
        ratio=results.turns.ratios[1],
        baseline_ms=results.turns.latencies[0].p50_ms,
        deployment=results.deployment,
    )
