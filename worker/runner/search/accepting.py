"""The last word on the finalists: measured by turns in one run, and judged on samples that nothing has seen.

Which of them may be delivered is found by testing them in a fixed order, the safest first, each at the full confidence,
until one fails: so the chance that any is accepted wrongly is no larger than that of one test (A. Angelopoulos et al.,
Learn then Test, arXiv:2110.01052: fixed sequence testing).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile

from app.jobs.report import Interval, Latency
from app.recipes.auto import ObjectiveWeights
from app.recipes.request import Metric
from worker.engine.evaluation.acceptance import Decision, accepts_any, decide, is_within
from worker.engine.evaluation.requests import ComparisonAnswer
from worker.engine.search.front import SAME, steps
from worker.engine.search.proposals import Ratios, Trial
from worker.runner.artifacts import Artifact
from worker.runner.chain import Outcome
from worker.runner.job_data import JobData
from worker.runner.measuring import LEAST_SECONDS, Laboratory, Share, Subject, noise_warnings
from worker.runner.side_by_side import why_unmeasured


@dataclass(frozen=True)
class Delivered:
    """A finalist as it will be delivered, before it is judged."""

    trial: Trial
    outcome: Outcome
    artifact: Artifact
    extras: list[Artifact]


@dataclass(frozen=True)
class Bound:
    """What was promised."""

    metric: Metric
    allowed: float
    confidence: float


@dataclass(frozen=True)
class Finalist:
    """The same with everything that was measured on its file."""

    delivered: Delivered
    subject: Subject
    latency: Latency
    ratio: Interval
    calls_per_second: float
    compared: ComparisonAnswer
    decision: Decision
    memory: float = 1.0
    """The original's peak over its own, where memory counts."""

    @property
    def trial(self) -> Trial:
        """What was measured on the samples for choosing; its speed and memory are those of the last measurement."""
        last = Ratios(self.ratio.value, self.delivered.trial.ratios.size, self.memory)
        return replace(self.delivered.trial, latency=self.ratio, ratios=last)

    @property
    def final(self) -> Trial:
        """With what the last measurement says of it."""
        return replace(self.trial, drop=self.compared.drop)

    def gains(self, weights: ObjectiveWeights) -> bool:
        """Whether it does at the lower end of the interval of its speed, and with as much memory as a second look may
        find: what is as good gains nothing by chance.
        """
        low = self.ratio.value if self.ratio.low is None else self.ratio.low
        return replace(self.trial.ratios, latency=low, memory=self.memory / SAME).gain(weights) > 0

    def lacks_samples(self, bound: Bound) -> bool:
        """Whether it holds by the estimates of both measurements, and too few samples say so."""
        drop = self.compared.drop
        within = drop is not None and is_within(drop, str(bound.metric.name), bound.allowed)
        return self.decision.outcome == "undecidable" and self.trial.holds and within


@dataclass(frozen=True)
class Turn:
    """Of the original in the same run."""

    latency: Latency
    calls_per_second: float


@dataclass(frozen=True)
class _Timed:
    """Of a finalist, by turns with the original."""

    latency: Latency
    ratio: Interval
    calls_per_second: float


def measure_finalists(
    laboratory: Laboratory,
    original: Subject,
    delivered: Sequence[Delivered],
    bound: Bound,
    warnings: list[str],
    kept_seconds: float = 0.0,
    *,
    memory_counts: bool = False,
) -> tuple[Turn, list[Finalist]]:
    """All that can be measured; those that cannot are left out, with a warning.

    Comparing takes equal shares of what is left of the budget but for `kept_seconds`.

    Raises:
        UserFault: the original alone cannot be timed either.

    """
    subjects = {}
    for one in delivered:
        with _left_out(one, warnings):
            subjects[one.trial.name] = laboratory.examine(one.artifact.model)
    kept = [one for one in delivered if one.trial.name in subjects]
    laboratory.pacing.at(1.0)
    turn, timed = _take_turns(laboratory, original, kept, warnings)
    finalists: list[Finalist] = []
    compared_ones = [one for one in kept if one.trial.name in timed]
    for number, one in enumerate(compared_ones):
        subject, times = subjects[one.trial.name], timed[one.trial.name]
        both_ms = original.footprint.call_ms + subject.footprint.call_ms
        seconds = (laboratory.pacing.seconds_left() - kept_seconds) / (len(compared_ones) - number)
        share = Share(max(LEAST_SECONDS, seconds))
        peaks = original.footprint.peak_memory_bytes / max(1, subject.footprint.peak_memory_bytes)
        with _left_out(one, warnings):
            compared = laboratory.compare(original.model, one.artifact.model, bound.metric, both_ms, share)
            finalists.append(
                Finalist(
                    delivered=one,
                    subject=subject,
                    latency=times.latency,
                    ratio=times.ratio,
                    calls_per_second=times.calls_per_second,
                    compared=compared,
                    decision=_decided(compared, bound, laboratory.data),
                    memory=peaks if memory_counts else 1.0,
                )
            )
    warnings.extend(dict.fromkeys(warning for one in finalists for warning in one.compared.warnings))
    return turn, finalists


def _decided(compared: ComparisonAnswer, bound: Bound, data: JobData) -> Decision:
    return decide(compared, *_asked(bound), held_out=data.held_out)


def _asked(bound: Bound) -> tuple[str, float, float]:
    return str(bound.metric.name), bound.allowed, bound.confidence


def _take_turns(
    laboratory: Laboratory, original: Subject, kept: Sequence[Delivered], warnings: list[str]
) -> tuple[Turn, dict[str, _Timed]]:
    """All in one run; where one of them spoils that, each in a run of its own beside the original."""
    try:
        return _timed(laboratory, original, kept, warnings)
    except Exception as error:  # see `_left_out`
        if not kept:
            raise
        laboratory.pacing.events.log(f"Timing all together failed, each is timed alone: {why_unmeasured(error)}")
    turn, timed = None, dict[str, _Timed]()
    for one in kept:
        with _left_out(one, warnings):
            turn, alone = _timed(laboratory, original, [one], warnings)
            timed |= alone
    return turn or _timed(laboratory, original, [], warnings)[0], timed


def _timed(
    laboratory: Laboratory, original: Subject, kept: Sequence[Delivered], warnings: list[str]
) -> tuple[Turn, dict[str, _Timed]]:
    turns = laboratory.take_turns([original.model, *(one.artifact.model for one in kept)])
    warnings.extend(noise_warnings(turns))
    turn = Turn(turns.latencies[0], turns.calls_per_second[0])
    figures = zip(turns.latencies[1:], turns.ratios[1:], turns.calls_per_second[1:], strict=True)
    return turn, {one.trial.name: _Timed(*found) for one, found in zip(kept, figures, strict=True)}


@contextmanager
def _left_out(one: Delivered, warnings: list[str]) -> Iterator[None]:
    """What goes wrong with one finalist, whosever fault it is, costs no other its measurement."""
    try:
        yield
    except Exception as error:
        warnings.append(f"`{one.trial.name}` was left out: {why_unmeasured(error)}")


def original_as_finalist(
    laboratory: Laboratory, original: Subject, delivered: Delivered, turn: Turn, bound: Bound, warnings: list[str]
) -> Finalist:
    """The original in the place of a winner: what it was measured at beside the others, and beside itself."""
    both_ms = 2 * original.footprint.call_ms
    compared = laboratory.compare(original.model, original.model, bound.metric, both_ms)
    # Where there was no finalist nothing else tells of the data, and of outputs that are not compared.
    warnings.extend(warning for warning in compared.warnings if warning not in warnings)
    return Finalist(
        delivered=delivered,
        subject=original,
        latency=turn.latency,
        ratio=Interval(value=1.0),
        calls_per_second=turn.calls_per_second,
        compared=compared,
        decision=Decision("met"),
    )


@dataclass(frozen=True)
class Choice:
    """The winner, and the finalists whose test counts, by name: up to the first in the sequence that failed."""

    winner: Finalist | None
    tested: frozenset[str]


def choose_winner(
    finalists: Sequence[Finalist], weights: ObjectiveWeights, bound: Bound, *, held_out: bool = True
) -> Choice:
    """The accepted one that gains most; None where none is accepted. `finalists` are those that gain anything: what
    would not be delivered needs no test, and so cannot end the sequence by failing it.

    Where the samples are too few to accept even a file that changes none of them, or none was `held_out` from choosing,
    estimates have to do: the verdict then is `undecidable`, and says so.
    """
    sequence = _fixed_sequence(finalists, weights, bound)
    accepted = list(takewhile(lambda one: one.decision.outcome == "met", sequence))
    tested = frozenset(one.trial.name for one in sequence[: len(accepted) + 1])
    enough = any(accepts_any(one.compared, *_asked(bound)) for one in finalists)
    if not accepted and not (enough and held_out):
        accepted = [one for one in finalists if one.lacks_samples(bound)]
        tested |= {one.trial.name for one in finalists}
    winner = max(accepted, key=lambda one: one.trial.ratios.gain(weights), default=None)
    return Choice(winner, tested)


def _fixed_sequence(finalists: Sequence[Finalist], weights: ObjectiveWeights, bound: Bound) -> list[Finalist]:
    """Those that are tested, in an order that is of what was measured on other samples."""
    by_name = {one.trial.name: one for one in finalists}
    order = steps([one.trial for one in finalists], weights, bound.allowed)
    return [by_name[one.name] for one in order]
