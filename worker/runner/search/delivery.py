"""What a search delivers: the winner, the rest of the front, and why."""

import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.jobs.report import Candidate, Deployment, Report, SearchReport, TrialOutcome, TrialReport, Verdict
from app.recipes.auto import ObjectiveWeights
from worker.engine.search.explaining import fallen, lacking_samples, verdict_on, why
from worker.engine.search.front import as_good, pareto_front
from worker.engine.search.proposals import ORIGINAL, Trial
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
from worker.runner.verdict import ACCEPTED_BY, decided, is_slower, judge, rarest_in_words, with_speed

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
    """The delivered ones, the winner first."""
    measured: list[Finalist]
    """All that were measured once more."""
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
    verdict = verdict_of(winner, ending, causes=True)
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
        search=told(ending),
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
    passes = [
        config.model_dump(by_alias=True, mode="json", exclude_defaults=True) | {"pass": str(config.pass_)}
        for config in one.delivered.trial.proposal.recipe
    ]
    return Candidate(
        name=one.delivered.trial.name,
        recipe=[step.pass_ for step in steps],
        passes=passes,
        request=ending.opened.request.for_given(passes) if passes else None,
        **_named(files[0]),
        measurement=one.subject.measurement(one.latency, speed, one.compared.candidate),
        latency_ratio=one.ratio,
        verdict=verdict_of(one, ending, causes=False),
        drop=one.compared.drop,
    )


def verdict_of(one: Finalist, ending: Ending, *, causes: bool) -> Verdict:
    """Whether the contract holds for one that is delivered; of the original also what more samples would accept."""
    if not one.delivered.outcome.steps:
        reason = "The original is delivered as it was uploaded: no candidate that gains anything was accepted."
        return Verdict(outcome="met", reason=" ".join([reason, *_lacking_samples(ending)]))
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


def told(ending: Ending) -> SearchReport:
    """The search in words: why the winner won, what was tried, and why each of the others lost."""
    trials, finalists = ending.found.trials, ending.finalists
    winner = finalists[0].trial if ending.accepted else None
    reasons = [*why(winner, trials, ending.weights, ending.bound.allowed), *_lacking_samples(ending)]
    return SearchReport(
        explanation=[*reasons, ending.found.ended],
        trials=_trials(ending, winner),
        front=[one.delivered.trial.name for one in finalists],
        seconds=ending.seconds,
        ended=ending.found.ended,
    )


def _lacking_samples(ending: Ending) -> list[str]:
    """How many would do for the one that ended the tests, in a sentence, where nothing but samples lacks.

    None where what is delivered was not accepted, and chosen by estimates: its own verdict says how many would do.
    """
    if ending.accepted and ending.finalists[0].decision.outcome != "met":
        return []
    return [
        lacking_samples(one.trial, ending.weights, _decided(one, ending))
        for one in ending.measured
        if one.trial.name in ending.tested and one.lacks_samples(ending.bound)
    ]


def _decided(one: Finalist, ending: Ending) -> str:
    bound, held_out = ending.bound, ending.data.accepting.held_out
    words = decided(one.decision, bound.allowed, bound.confidence, ACCEPTED_BY, held_out=held_out)
    rarest = rarest_in_words(one.compared) if held_out and one.decision.outcome == "undecidable" else []
    return " ".join([words, *rarest])


def _trials(ending: Ending, winner: Trial | None) -> list[TrialReport]:
    trials = ending.found.trials
    again = {one.trial.name: one for one in ending.measured}
    of_trials = {one.name for one in pareto_front(trials)}
    found = []
    for trial in trials:
        last, of_last_front = again.get(trial.name), trial.name in ending.front
        explanation = verdict_on(
            trial,
            winner,
            ending.bound.allowed,
            ending.weights,
            of_front=trial.name in of_trials,
            again=last is not None,
            of_last_front=of_last_front,
        )
        if last is not None:
            won = winner is not None and trial.name == winner.name
            words = [] if won or of_last_front else [fallen(last.final, ending.weights, _beaten_by(last, ending))]
            explanation = " ".join([explanation, *words, *_accepting(last, ending)])
        outcome = _outcome(trial, winner, of_last_front=of_last_front)
        found.append(report_of(trial, outcome, explanation, ending.weights))
    return found


def _beaten_by(one: Finalist, ending: Ending) -> str | None:
    """What is as good in all by the last measurement; None of one that differs by what is no number."""
    if one.compared.drop is None:
        return None
    if as_good(ORIGINAL, one.final):
        return "the original"
    front = (other for other in ending.measured if other.trial.name in ending.front)
    return next((f"`{other.trial.name}`" for other in front if as_good(other.final, one.final)), None)


def _accepting(one: Finalist, ending: Ending) -> list[str]:
    """What the samples for accepting say of it, and whether that counts: in sentences, none where all is well."""
    if one.decision.outcome != "met":
        words = [f"On the samples for accepting it is {one.decision.outcome}.", _decided(one, ending)]
        gaining = {other.trial.name for other in ending.measured if other.gains(ending.weights)}
        ended_tests = one.trial.name in ending.tested and gaining - ending.tested
        return [*words, "It failed its test, and none that risks more was tested."] if ended_tests else words
    if not one.gains(ending.weights):
        return ["On the samples for accepting it holds, and it gains nothing for certain."]
    if one.trial.name not in ending.tested:
        return [
            "On the samples for accepting it holds, which does not count: of those alike one is tested, the safest "
            "first and until one fails, so that none is accepted by chance."
        ]
    return []


def _outcome(trial: Trial, winner: Trial | None, *, of_last_front: bool) -> TrialOutcome:
    if not trial.measured:
        return "failed"
    if winner is not None and trial.name == winner.name:
        return "winner"
    if not trial.holds:
        return "broken"
    return "front" if of_last_front else "beaten"
