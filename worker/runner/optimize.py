"""An optimization job: measure the original, run the recipe, measure what came out beside it, judge."""

from dataclasses import dataclass
from pathlib import Path

from app import errors
from app.jobs.report import Candidate, Deployment, Environment, Figures, Measurement, Report, Summary
from app.recipes.request import Metric, OptimizeRequest
from worker.engine.evaluation.requests import ComparisonAnswer, TurnsAnswer
from worker.engine.faults import UserFault
from worker.engine.graph import UnsupportedValue, inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.sessions import require_device
from worker.engine.versions import versions
from worker.runner.artifacts import Artifact, artifact_stem, marked_slower, write_artifact, write_extras, write_manifest
from worker.runner.causes import Evidence, find_causes
from worker.runner.chain import Circumstances, Outcome, run_chain
from worker.runner.contract import InputFile, RunnerJob, RunnerResult
from worker.runner.deployment import Terms, check_deployment, seconds_for_checking
from worker.runner.events import Events
from worker.runner.job_data import JobData, choose_metric, load_data
from worker.runner.manifest import Account, build_manifest
from worker.runner.measuring import Laboratory, Subject, noise_warnings
from worker.runner.pacing import Pacing
from worker.runner.step_files import Ends, files_between, with_files
from worker.runner.unpacking import MODEL_FOLDER, unpack_model
from worker.runner.verdict import is_slower, judge, with_speed

# Shares of the work at which each stage ends.
PREPARED, BASELINE, OPTIMIZED, EXAMINED, TIMED, COMPARED, CHECKED = 0.03, 0.12, 0.5, 0.6, 0.8, 0.88, 0.95
# Metrics whose drop is a share of samples that came out otherwise.
COUNTING = frozenset({"top1", "accuracy", "agreement"})
PERFECT = {"agreement": 1.0, "cosine": 1.0}


class UnsupportedInput(UserFault):
    code, title = "unsupported_input", "The model takes input that is no tensor"


class IncompleteJob(UserFault):
    code, title = "incomplete_job", "The job lacks a model or a request"


class TooManyThreads(UserFault):
    code, title = errors.TooManyThreads.code, errors.TooManyThreads.title


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
    if job.model is None or job.request is None:
        raise IncompleteJob("The job names no model or no request.", None)
    request = _with_threads(job.request, job.threads)
    pacing = Pacing(events, job.budget_seconds)
    scratch = workdir / "scratch"
    scratch.mkdir(exist_ok=True)
    require_device(request.target.device)
    pacing.phase("preparing")
    model = _open(job.model, workdir)
    data = load_data(job, request, model, workdir, scratch)
    threads, device = request.target.threads or job.threads, request.target.device
    laboratory = Laboratory(scratch / "measuring", data, threads, device, request.seed, pacing)

    pacing.span(PREPARED, BASELINE)
    pacing.phase("baseline")
    baseline = laboratory.examine(model)
    warnings = list(data.warnings)
    metric = choose_metric(request, data, baseline.footprint.outputs, warnings)

    max_drop = request.contract.max_drop if request.contract and metric.name in COUNTING else None
    circumstances = Circumstances(
        feeds=data.calibration,
        seed=request.seed,
        threads=laboratory.threads,
        folder=scratch,
        pacing=pacing,
        target=data.latency,
        max_drop=max_drop,
        device=device,
        original=model,
        others={name: _open(file, workdir, f"model-{name}") for name, file in job.others.items()},
        training=data.training,
        workdir=workdir,
        checkpoints=job.checkpoints,
    )
    outcome = run_chain(model, list(request.recipe), circumstances, (BASELINE, OPTIMIZED))
    stem = artifact_stem(job.model.name, [step.pass_ for step in outcome.steps])
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
    deployment = _check(request, laboratory, baseline, candidate, job.threads)
    pacing.span(CHECKED, 1.0)
    outcome.steps = with_files(outcome, Ends(baseline, candidate, turns, compared, warnings), laboratory, metric)
    results = Results(
        metric, data, outcome, artifact, extras, baseline, candidate, turns, compared, warnings, deployment
    )
    return _result(job, request, results, workdir)


def _check(
    request: OptimizeRequest, laboratory: Laboratory, baseline: Subject, candidate: Subject, most_threads: int
) -> Deployment | None:
    """The deployment check, where one was asked for. It comes before the steps of a chain, which take what is left."""
    if not request.deployment_check:
        return None
    laboratory.pacing.phase("checking")
    terms = Terms(seconds_for_checking(laboratory), most_threads, slower_fails=request.objective == "latency")
    return check_deployment(laboratory, baseline, candidate, terms)


def _with_threads(request: OptimizeRequest, most: int) -> OptimizeRequest:
    threads = request.target.threads or most
    if threads > most:
        raise TooManyThreads(
            f"`target.threads` is {threads}; this worker gives a model {most}.",
            f"Ask for {most} or fewer, or leave it out for all that the worker has.",
        )
    return request.model_copy(update={"target": request.target.model_copy(update={"threads": threads})})


def _open(file: InputFile, workdir: Path, folder_name: str = MODEL_FOLDER) -> ModelFile:
    model = ModelFile(unpack_model(file, workdir, folder_name))
    try:
        inputs_of(model.structure())
    except UnsupportedValue as error:
        raise UnsupportedInput(f"Input {error}.", "Export the model with tensors as inputs.") from error
    return model


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
    account = Account(results.metric, results.outcome.manifests, turns, artifact, extras)
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
        environment=_environment(request, results.data),
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
        summary=_summary(report, results),
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


def _environment(request: OptimizeRequest, data: JobData) -> Environment:
    return Environment(
        device=request.target.device,
        processor=processor_name(request.target.device),
        instruction_sets=instruction_sets(),
        threads=request.target.threads or 1,
        batch=data.batch,
        shapes={name: list(array.shape[1:]) for name, array in data.latency.arrays.items()},
        versions=versions(),
    )


def _summary(report: Report, results: Results) -> Summary:
    before, after = report.baseline, report.candidates[0].measurement
    name = str(results.metric.name)
    original = results.compared.metric_original if results.metric.labels else PERFECT.get(name)
    optimized = results.compared.metric_candidate
    ratio = {
        "size": before.size_bytes / max(after.size_bytes, 1),
        "latency": report.candidates[0].latency_ratio.value,
        "memory": before.peak_memory_bytes / max(after.peak_memory_bytes, 1),
    }
    if original is not None and optimized is not None:
        ratio["metric"] = optimized - original
    return Summary(metric=name, baseline=_figures(before, original), optimized=_figures(after, optimized), ratio=ratio)


def _figures(measured: Measurement, metric: float | None) -> Figures:
    return Figures(
        size_bytes=measured.size_bytes,
        latency_ms=measured.latency.p50_ms,
        throughput_per_second=measured.throughput_per_second,
        peak_memory_bytes=measured.peak_memory_bytes,
        metric=metric,
    )
