"""What a search delivers: the winner, the rest of the front, and why."""

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.jobs.report import Candidate, Deployment, Report, SearchReport, TrialOutcome, TrialReport, Verdict
from app.recipes.auto import ObjectiveWeights
from worker.engine.search.explaining import verdict_on, why
from worker.engine.search.front import pareto_front
from worker.engine.search.proposals import Trial
from worker.runner.artifacts import Artifact, marked_slower, write_manifest
from worker.runner.causes import Evidence, find_causes
from worker.runner.contract import OutputFile, RunnerResult
from worker.runner.manifest import Account, build_manifest
from worker.runner.measuring import Subject
from worker.runner.opening import OpenJob
from worker.runner.search.accepting import Bound, Finalist, Turn
from worker.runner.search.data import SearchData
from worker.runner.search.plotting import Picture, Point, write_plots
from worker.runner.search.searching import Found, report_of
from worker.runner.summary import environment_of, summary_of
from worker.runner.verdict import is_slower, judge, with_speed

NOT_DRAWN = "The picture of the front could not be drawn; the worker's log says why, and the report has its figures."


@dataclass(frozen=True)
class Ending:
    """A search that is over: all that its report is made of."""

    opened: OpenJob
    data: SearchData
    bound: Bound
    weights: ObjectiveWeights
    original: Subject
    turn: Turn
    found: Found
    finalists: list[Finalist]
    """The winner first."""
    accepted: bool
    """Whether the first of them was accepted; else it is the original."""
    tested: frozenset[str]
    """Those whose test counts, by name."""
    front: frozenset[str]
    """Those that no other is better than in all, by the last measurement, by name."""
    warnings: list[str]
    seconds: float
    deployment: Deployment | None = None


def delivered(ending: Ending) -> RunnerResult:
    """Every finalist as an artifact; the report with every candidate and every trial."""
    winner = ending.finalists[0]
    files = {one.delivered.trial.name: _files(one) for one in ending.finalists}
    candidates = [_candidate(one, files[one.delivered.trial.name], ending) for one in ending.finalists]
    before = ending.original.measurement(
        ending.turn.latency, ending.turn.calls_per_second * ending.data.accepting.batch, winner.compared.original
    )
    verdict = _verdict(winner, ending, causes=True)
    artifact, *extras = [_named(one) for one in files[winner.delivered.trial.name]]
    medians = {"original": ending.turn.latency.round_medians_ms, "optimized": winner.latency.round_medians_ms}
    outcome = winner.delivered.outcome
    recipe = [step.parameters for step in outcome.steps]
    account = Account(ending.bound.metric, recipe, outcome.manifests, medians, artifact, extras)
    manifest = build_manifest(ending.opened.job, ending.opened.request, account)
    plots = _plots(ending)
    report = Report(
        baseline=before,
        candidates=candidates,
        steps=outcome.steps,
        verdict=verdict,
        environment=environment_of(ending.opened.request, ending.data.accepting),
        data=ending.data.accepting.words,
        warnings=ending.warnings,
        search=_search(ending),
        deployment=ending.deployment,
        manifest=manifest,
    )
    written = [file.file for one in ending.finalists for file in files[one.delivered.trial.name]]
    return RunnerResult(
        outcome="succeeded",
        artifacts=[*written, *plots, write_manifest(manifest, ending.opened.workdir)],
        report=report,
        verdict=verdict,
        summary=summary_of(before, candidates[0], ending.bound.metric, winner.compared),
    )


def _plots(ending: Ending) -> list[OutputFile]:
    """Pictures of the front. Whatever goes wrong with them costs no job what it found."""
    try:
        return write_plots(_picture(ending), ending.opened.workdir)
    except Exception as error:
        with suppress(OSError):
            traceback.print_exception(error)
        ending.warnings.append(NOT_DRAWN)
        ending.opened.pacing.events.log(NOT_DRAWN, "warning")
        return []


def _picture(ending: Ending) -> Picture:
    before = ending.turn.latency.p50_ms
    front = {
        one.delivered.trial.name: Point(
            name=one.delivered.trial.name,
            latency_ms=before / one.ratio.value,
            size_bytes=one.subject.size_bytes,
            drop=one.compared.drop,
            holds=one.decision.outcome == "met",
            memory_ratio=one.memory if ending.weights.memory else None,
        )
        for one in ending.finalists
    }
    tried = [
        Point(trial.name, before / trial.ratios.latency, trial.size_bytes, trial.drop, trial.holds)
        for trial in ending.found.trials
        if trial.measured and trial.name not in front
    ]
    original = Point("original", before, ending.original.size_bytes, 0.0, holds=True)
    return Picture(str(ending.bound.metric.name), ending.bound.allowed, original, list(front.values()), tried)


def _files(one: Finalist) -> list[Artifact]:
    files = [one.delivered.artifact, *one.delivered.extras]
    return [marked_slower(file) for file in files] if is_slower(one.ratio) else files


def _named(one: Artifact) -> dict[str, Any]:
    return {"file_name": one.file.file_name, "sha256": one.sha256}


def _candidate(one: Finalist, files: Sequence[Artifact], ending: Ending) -> Candidate:
    steps = one.delivered.outcome.steps
    speed = one.calls_per_second * ending.data.accepting.batch
    return Candidate(
        name=one.delivered.trial.name,
        recipe=[step.pass_ for step in steps],
        passes=[
            config.model_dump(by_alias=True, mode="json", exclude_defaults=True) | {"pass": str(config.pass_)}
            for config in one.delivered.trial.proposal.recipe
        ],
        **_named(files[0]),
        measurement=one.subject.measurement(one.latency, speed, one.compared.candidate),
        latency_ratio=one.ratio,
        verdict=_verdict(one, ending, causes=False),
        drop=one.compared.drop,
    )


def _verdict(one: Finalist, ending: Ending, *, causes: bool) -> Verdict:
    if not one.delivered.outcome.steps:
        return Verdict(
            outcome="met",
            reason="The original is delivered as it was uploaded: no candidate that gains anything was accepted.",
        )
    found = find_causes(_evidence(one, ending)) if causes else []
    data = ending.data.accepting
    return with_speed(judge(ending.opened.request, ending.bound.metric, one.compared, data, found), one.ratio)


def _evidence(one: Finalist, ending: Ending) -> Evidence:
    return Evidence(
        request=ending.opened.request,
        data=ending.data.accepting,
        steps=one.delivered.outcome.steps,
        baseline=ending.original,
        candidate=one.subject,
        ratio=one.ratio,
        baseline_ms=ending.turn.latency.p50_ms,
        deployment=ending.deployment,
    )


def _search(ending: Ending) -> SearchReport:
    trials, finalists = ending.found.trials, ending.finalists
    winner = finalists[0].trial if ending.accepted else None
    said = {one.delivered.trial.name: one for one in finalists}
    return SearchReport(
        explanation=[*why(winner, trials, ending.weights, ending.bound.allowed), ending.found.ended],
        trials=_trials(ending, winner, said),
        front=[one.delivered.trial.name for one in finalists],
        seconds=ending.seconds,
        ended=ending.found.ended,
    )


def _trials(ending: Ending, winner: Trial | None, said: Mapping[str, Finalist]) -> list[TrialReport]:
    """`said`: what is delivered, by name."""
    trials = ending.found.trials
    of_trials = {one.name for one in pareto_front(trials)}
    found = []
    for trial in trials:
        has_file, of_last = trial.name in said, trial.name in ending.front
        explanation = verdict_on(
            trial,
            winner,
            ending.bound.allowed,
            ending.weights,
            of_front=trial.name in of_trials,
            of_last_front=has_file and of_last,
        )
        if has_file:
            explanation += _accepting(said[trial.name], ending)
        outcome = _outcome(trial, winner, of_last_front=has_file and of_last)
        found.append(report_of(trial, outcome, explanation, ending.weights))
    return found


def _accepting(one: Finalist, ending: Ending) -> str:
    """What the samples for accepting say of it, and whether that counts."""
    if one.decision.outcome != "met":
        return f" On the samples for accepting it is {one.decision.outcome}."
    if not one.gains(ending.weights):
        return " On the samples for accepting it holds, and it gains nothing for certain."
    if one.trial.name not in ending.tested:
        return (
            " On the samples for accepting it holds, which does not count: of those alike one is tested, the safest "
            "first and until one fails, so that none is accepted by chance."
        )
    return ""


def _outcome(trial: Trial, winner: Trial | None, *, of_last_front: bool) -> TrialOutcome:
    if not trial.measured:
        return "failed"
    if winner is not None and trial.name == winner.name:
        return "winner"
    if not trial.holds:
        return "broken"
    return "front" if of_last_front else "beaten"
