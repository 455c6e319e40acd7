"""The files that the steps of a chain left, each beside the original."""

from dataclasses import dataclass, field

from app.jobs.report import Step, StepFile
from app.recipes.request import Metric
from worker.engine.evaluation.requests import ComparisonAnswer, TurnsAnswer
from worker.runner.chain import Outcome
from worker.runner.measuring import Laboratory, Subject
from worker.runner.side_by_side import Standing, measure_beside


@dataclass(frozen=True)
class Ends:
    """Both ends of a chain as the job has measured them: original and delivered, in one run by turns."""

    original: Subject
    delivered: Subject
    turns: TurnsAnswer
    compared: ComparisonAnswer
    warnings: list[str] = field(default_factory=list)
    """What the report says of the job as a whole, and need not say of each step."""

    def files(self) -> tuple[StepFile, StepFile]:
        """The original, of which quality is known by labels alone, and the delivered file."""
        subjects = (self.original, self.delivered)
        qualities = (self.compared.original, self.compared.candidate)
        original, delivered = (
            StepFile(
                size_bytes=subject.size_bytes,
                latency=latency,
                original_latency_ms=self.turns.latencies[0].p50_ms,
                latency_ratio=ratio,
                quality=quality,
            )
            for subject, latency, ratio, quality in zip(
                subjects, self.turns.latencies, self.turns.ratios, qualities, strict=True
            )
        )
        original.notes.append("No step had changed anything: this is the original.")
        return original, delivered


def files_between(outcome: Outcome) -> list[int]:
    """The steps, counted from 0, that left a file of their own which is not the delivered one."""
    return [number for number, step in enumerate(outcome.steps) if step.modified][:-1]


def with_files(outcome: Outcome, ends: Ends, laboratory: Laboratory, metric: Metric) -> list[Step]:
    """The steps, each with the file that it left; those of a chain that are not delivered are measured now."""
    if len(outcome.steps) == 1:
        return outcome.steps
    original, delivered = ends.files()
    between = {str(number): outcome.files[number] for number in files_between(outcome)}
    standings: dict[str, Standing] = {}
    if between:
        laboratory.pacing.phase("measuring")
        standings = measure_beside(laboratory, ends.original, between, metric)
    # Where no step changed anything, what is delivered is the original, and was measured as delivered.
    file = original if outcome.modified else delivered
    steps = []
    for number, step in enumerate(outcome.steps):
        if step.modified:
            standing = standings.get(str(number))
            file = _step_file(standing, ends.warnings) if standing else delivered
        steps.append(step.model_copy(update={"file": file}))
    return steps


def _step_file(standing: Standing, known: list[str]) -> StepFile:
    times, compared = standing.times, standing.compared
    return StepFile(
        size_bytes=standing.size_bytes,
        latency=times.file if times else None,
        original_latency_ms=times.original.p50_ms if times else None,
        latency_ratio=times.ratio if times else None,
        quality=compared.candidate if compared else [],
        unmeasured=standing.unmeasured,
        notes=[note for note in standing.notes if note not in known],
    )
