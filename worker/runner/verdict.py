"""Whether the contract holds, in words that carry their numbers."""

from collections import defaultdict

import numpy as np

from app.jobs.report import Interval, Verdict
from app.recipes.request import LABEL_FREE, Metric, OptimizeRequest
from worker.engine.evaluation.acceptance import COUNTING, ROUNDING, Decision, counted_samples, decide, is_within
from worker.engine.evaluation.metrics import SMALLER_IS_BETTER, drop
from worker.engine.evaluation.requests import ComparisonAnswer
from worker.engine.fidelity import CHANGES_A_DROP
from worker.runner.job_data import JobData

# What decides in a search: a part of the evaluation data.
ACCEPTED_BY = "samples to accept by"
# Why samples that are not held out decide nothing, and what would: of a search, and of a recipe.
CHOSEN_BY = "The file was chosen by the same ones, as there are too few others to hold out: give more."
MADE_BY = "Passes of the recipe read the same ones: upload others, and name them as `data.evaluation`."
NAMED_OUTPUTS = 5
# Which samples it is that more are wanted of.
RAREST = "F1 weighs all classes alike. The rarest is {}: the original is right about it in {:,} of these samples."


def judge(
    request: OptimizeRequest, metric: Metric, compared: ComparisonAnswer, data: JobData, causes: list[str]
) -> Verdict:
    """By the confidence that the contract asks for, or where it asks for none by the estimate of the drop itself.

    The reason says how sure an estimate is. First among the causes is what changed beside the output of the contract.
    """
    if request.contract is None:
        return Verdict(
            outcome="no_contract", reason=f"No contract was asked for. {_figures(metric, compared)}", causes=causes
        )
    allowed = request.contract.largest_drop(str(metric.name))
    causes = [*_other_outputs(metric, compared, allowed), *causes]
    if compared.drop is None:
        reason = f"{_figures(metric, compared)} The difference is not a finite number, so the contract does not hold."
        return Verdict(outcome="unmet", reason=reason, causes=causes)
    if request.contract.confidence is not None:
        confidence = request.contract.confidence
        decision = decide(compared, str(metric.name), allowed, confidence, held_out=data.held_out)
        auto = request.recipe == "auto"
        what = ACCEPTED_BY if auto else "samples of evaluation data"
        words = [_figures(metric, compared), decided(decision, allowed, confidence, what, held_out=data.held_out)]
        if decision.outcome == "undecidable" and not _is_beyond_proof(decision, allowed):
            words += _wanted(compared, data, auto=auto)
        if decision.outcome == "undecidable" and auto and not data.random_evaluation:
            words.append(f"To accept by there were {data.words['evaluation']}.")
        words += ["The input was random."] if data.random_evaluation else []
        return Verdict(outcome=decision.outcome, reason=" ".join(words), causes=causes)
    met = is_within(compared.drop, str(metric.name), allowed)
    side = "within" if met else "beyond"
    reason = f"{_figures(metric, compared)} That is {side} the {_number(allowed)} allowed."
    return Verdict(
        outcome="met" if met else "unmet",
        reason=" ".join([reason, *_doubts(metric, compared, allowed, met, data)]),
        causes=causes,
    )


def _other_outputs(metric: Metric, compared: ComparisonAnswer, allowed: float) -> list[str]:
    """A list of no or one sentence: outputs that the contract is not of, and that changed by more than it allows.

    By the metric of the contract, or where that needs labels by agreement with the original.
    """
    values: dict[str, dict[str, float | None]] = defaultdict(dict)
    for one in compared.candidate:
        if one.output not in (None, metric.output) and one.labels is None:
            values[str(one.output)][one.name] = one.value
    free = metric.name in LABEL_FREE
    most = allowed if free else CHANGES_A_DROP * allowed
    changed = []
    for output, found in values.items():
        # What answers NaN keeps agreement alone; and what answers zeros has no ratio to noise, exact or ruined.
        name = str(metric.name) if free and found.get(str(metric.name)) is not None else "agreement"
        if (value := found.get(name)) is None:
            continue
        lost = float(drop(name, np.asarray(1.0), np.asarray(value)))
        if not is_within(lost, name, most):
            changed.append((lost, f"{output!r} ({name} {_number(value)})"))
    if not changed:
        return []
    some = ", ".join(words for _, words in sorted(changed, reverse=True)[:NAMED_OUTPUTS])
    rest = f" and {len(changed) - NAMED_OUTPUTS} more" if len(changed) > NAMED_OUTPUTS else ""
    return [
        f"The contract is of {metric.output!r} alone, and other outputs changed by more than goes with the "
        f"{_number(allowed)} allowed of it: {some}{rest}. Name one as `metric.output` to hold it to the contract."
    ]


def _is_beyond_proof(decision: Decision, allowed: float) -> bool:
    """Whether nothing may be lost, and no samples, held out or not, could show that nothing is."""
    return allowed <= 0 and (decision.below or 0.0) > allowed + ROUNDING


def decided(decision: Decision, allowed: float, confidence: float, what: str, *, held_out: bool) -> str:
    """A decision in words, with its bound, and how many samples would make it; `what` those are."""
    sure = f"At {confidence:g} confidence"
    if decision.outcome == "met":
        return f"{sure} the drop is at most {_number(decision.below or 0.0)}: within the {_number(allowed)} allowed."
    if decision.outcome == "unmet":
        above = "beyond" if decision.above is None else f"at least {_number(decision.above)}: beyond"
        return f"{sure} the drop is {above} the {_number(allowed)} allowed."
    may_be = f"{sure} the drop may be as much as {_number(decision.below or 0.0)}"
    if _is_beyond_proof(decision, allowed):
        return f"{may_be}, and none is allowed: no number of samples shows that nothing is lost at all."
    wanted = decision.samples_needed
    if held_out and decision.at_least and wanted is not None:
        return f"{sure} so few samples show nothing: at least {_number(wanted, whole=True)} {what} would."
    not_here = f"{may_be}, and {_number(allowed)} is allowed: these samples do not decide it."
    if not held_out:
        return not_here
    enough = "many more" if wanted is None else f"about {_number(wanted, whole=True)}"
    return f"{not_here} With the same answers {enough} {what} would."


def _wanted(compared: ComparisonAnswer, data: JobData, *, auto: bool) -> list[str]:
    """Which samples it is that are missing, where that is known: a list of no or one sentence."""
    if not data.held_out:
        return [CHOSEN_BY if auto else MADE_BY]
    return rarest_in_words(compared)


def rarest_in_words(compared: ComparisonAnswer) -> list[str]:
    """Of F1, which class more samples are wanted of: a list of no or one sentence."""
    rare = compared.influence
    return [] if rare is None else [RAREST.format(rare.rarest_class, rare.rarest_samples)]


def is_slower(ratio: Interval) -> bool:
    """Whether the delivered file is slower than its original beyond the noise: all of the interval is below 1."""
    return ratio.value < 1 and (ratio.high is None or ratio.high < 1)


def with_speed(verdict: Verdict, ratio: Interval) -> Verdict:
    """The verdict, saying so where the delivered file is slower than its original."""
    if not is_slower(ratio):
        return verdict
    said = f"{verdict.reason} The delivered file is slower than the original: {_number(ratio.value)} times as fast."
    return verdict.model_copy(update={"reason": said})


def _figures(metric: Metric, compared: ComparisonAnswer) -> str:
    name = metric.name
    of = f" of {metric.output!r}" if name in LABEL_FREE else f" of {metric.output!r} against {metric.labels!r}"
    samples = _samples(compared)
    if name in LABEL_FREE:
        # Without noise there is no ratio to it.
        no_number = "exact" if name == "sqnr_db" and compared.drop == 0 else "not finite"
        value = no_number if compared.metric_candidate is None else _number(compared.metric_candidate)
        unit = " dB" if name == "sqnr_db" and compared.metric_candidate is not None else ""
        text = f"{name}{of} with the original is {value}{unit} over {samples}"
        text += ": agreement with the original, not accuracy"
        if name == "sqnr_db" and compared.drop is not None:
            text += f" (noise is {_number(compared.drop)} of the signal's power)"
        return f"{text}{_interval(compared)}."
    before = "not finite" if compared.metric_original is None else _number(compared.metric_original)
    after = "not finite" if compared.metric_candidate is None else _number(compared.metric_candidate)
    text = f"{name}{of} goes from {before} to {after} over {samples}"
    if compared.drop is not None:
        what = "growth, as a share of the original's," if name in SMALLER_IS_BETTER else "drop"
        text += f": a {what} of {_number(compared.drop)}{_interval(compared)}"
    return f"{text}."


def _samples(compared: ComparisonAnswer) -> str:
    """How many the figures are of: where some have no known label, those that have. A metric that is not given scores
    none.
    """
    count, scored = compared.sample_count, compared.scored_samples
    return f"{count:,} samples" if scored in (0, count) else f"{scored:,} scored of {count:,} samples"


def _interval(compared: ComparisonAnswer) -> str:
    if compared.drop_low is None or compared.drop_high is None:
        return ""
    if compared.drop_low == compared.drop_high == compared.drop:
        return ""
    return f" (drop's paired 95 % interval {_number(compared.drop_low)} to {_number(compared.drop_high)})"


def _doubts(metric: Metric, compared: ComparisonAnswer, allowed: float, met: bool, data: JobData) -> list[str]:
    """What a careful reader would object to."""
    found = []
    low, high = compared.drop_low, compared.drop_high
    if met and high is not None and not is_within(high, str(metric.name), allowed):
        found.append(
            f"The interval reaches beyond the contract: {compared.scored_samples:,} samples do not settle it; more "
            "evaluation data would."
        )
    if not met and low is not None and low <= allowed:
        found.append(
            f"The interval reaches back within the contract: {compared.scored_samples:,} samples do not settle it."
        )
    # The rule of three (J. Hanley, A. Lippman-Hand, JAMA 1983): none in n is compatible with up to 3 in n.
    largest = min(1.0, 3 / counted_samples(compared, str(metric.name))) if metric.name in COUNTING else 0.0
    none_lost = compared.drop == 0 if metric.name == "f1" else compared.changed_samples == 0
    if met and none_lost and largest > allowed:
        what = "Nothing was lost" if metric.name == "f1" else "No sample changed"
        found.append(
            f"{what}, which for {compared.scored_samples:,} samples still allows a true drop of up to "
            f"{_number(largest)}."
        )
    if data.random_evaluation:
        found.append("The input was random.")
    return found


def _number(value: float, *, whole: bool = False) -> str:
    """Four significant digits, without exponents where a person would not use one."""
    if whole:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2g}"
