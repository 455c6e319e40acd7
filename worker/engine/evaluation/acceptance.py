"""Whether a bound on the drop of a metric holds beyond the samples that it was measured on.

One-sided bounds at a confidence, by the paired bootstrap. For metrics that count samples the bootstrap says too little
where most are alike (none lost is taken to be impossible, all lost to be certain), so there the exact binomial bounds
are taken where they are wider (C. Clopper, E. Pearson, Biometrika 26, 1934); for none of n the upper one is the rule of
three. For other metrics it is corrected for skewness, and fewer samples than that rule asks for show nothing.

Macro-F1 counts samples too, and weighs them by class: where a class has 4 samples, none of which was lost, half of such
may be. What is lost of it is a weighted sum of counts, each of which follows Poisson's law; its bounds are those of
M. Fay, E. Feuer (Confidence intervals for directly standardized rates, Statistics in Medicine 16, 1997), with the
largest variance that the weights leave: as if all that was lost were samples of the heaviest weight (`Influence.most`).
So it counts as 1 / weight samples. Of n samples of a class that were right and still are, a share q may be lost where
(1 - q)^n is the error allowed, and F1 of the class then falls by q / (2 - q) at most, which is tanh(x / 2) with
x = -ln(error) / n: the bound has it at x / 2. Ten classes of 30 samples each count as about 300, as many as show at
0.95 that a drop is at most 0.01; top-1 takes 299.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from worker.engine.evaluation.requests import ComparisonAnswer

# Metrics whose drop is a share of samples that came out otherwise; of `f1` a weighted one.
COUNTING = frozenset({"top1", "top5", "accuracy", "agreement", "f1"})
# A drop of 1 sample in 100 is 0.010000000000000009 in floating point.
ROUNDING = 1e-9
MOST_SAMPLES = 10**9
MEAN_BEYOND_MEDIAN = 2 / 3
# Resamples of fewer say nothing, whichever way.
LEAST_RESAMPLED = 8

Outcome = Literal["met", "unmet", "undecidable"]


@dataclass(frozen=True)
class Decision:
    """`below` and `above` bound the drop at the confidence; `samples_needed` would decide it, where known, or are the
    fewest that could.
    """

    outcome: Outcome
    below: float | None = None
    above: float | None = None
    samples_needed: int | None = None
    at_least: bool = False


def decide(
    compared: ComparisonAnswer, metric: str, allowed: float, confidence: float, *, held_out: bool = True
) -> Decision:
    """`met` where the drop is within `allowed` at this confidence, `unmet` where it is beyond it, else undecidable.

    So is what is not unmet on samples that were not `held_out`: the candidate was made or chosen by them.
    """
    drop, below, above = compared.drop, compared.drop_below, compared.drop_above
    if drop is None or below is None or above is None:
        return Decision("unmet")
    samples, least = compared.scored_samples, 0
    if metric in COUNTING:
        # What was gained is not set against what may be lost; where answers changed both ways the bootstrap's bounds,
        # which know of it, are the wider ones.
        counted = counted_samples(compared, metric)
        lost = max(0.0, drop * counted)
        below = max(below, _upper(metric, lost, counted, confidence))
        above = min(above, _lower(metric, lost, counted, confidence))
    else:
        least = least_samples(metric, allowed, confidence) if drop <= allowed else LEAST_RESAMPLED
    shown = metric in COUNTING or samples >= LEAST_RESAMPLED
    if shown and not is_within(above, metric, allowed):
        return Decision("unmet", below, above)
    if not held_out:
        return Decision("undecidable", below, above)
    within = is_within(below, metric, allowed)
    if within and samples >= least:
        return Decision("met", below, above)
    if within or not shown:
        return Decision("undecidable", below, above, _of_data(compared, least), at_least=True)
    needed = _samples_needed(compared, metric, (above, below), allowed, confidence)
    return Decision("undecidable", below, above, None if needed is None else max(_of_data(compared, least), needed))


def _of_data(compared: ComparisonAnswer, scored: int) -> int:
    """How many samples of data bring so many that are scored: where one answer is for a whole call, many to one."""
    return math.ceil(scored * compared.sample_count / max(1, compared.scored_samples))


def is_within(drop: float, metric: str, allowed: float) -> bool:
    """Whether it is no more than `allowed`, but for rounding."""
    return drop <= allowed + _rounding(metric, allowed)


def _rounding(metric: str, allowed: float) -> float:
    # A floor of 150 dB of `sqnr_db` allows 1e-15.
    return min(ROUNDING, 1e-6 * allowed) if metric == "sqnr_db" else ROUNDING


def counted_samples(compared: ComparisonAnswer, metric: str) -> float:
    """As how many samples that weigh alike those that were scored count; of `f1` fewer where classes are rare, and 1
    where the original is right about nothing, so that nothing is known of what it could lose.
    """
    if metric != "f1":
        return compared.scored_samples
    return 1 / compared.influence.most if compared.influence else 1.0


def accepts_any(compared: ComparisonAnswer, metric: str, allowed: float, confidence: float) -> bool:
    """Whether as many samples accept a file that changes none of them."""
    if metric not in COUNTING:
        return compared.scored_samples >= least_samples(metric, allowed, confidence)
    return is_within(_upper(metric, 0, counted_samples(compared, metric), confidence), metric, allowed)


def least_samples(metric: str, allowed: float, confidence: float) -> int:
    """How many samples, none of which changed, show at this confidence that the drop is within `allowed`.

    Of `f1`: where each weighs as much as the others, as of classes that are equally frequent. Of a metric that counts
    none nobody knows how much a single sample may lose: as many, then, as show at this confidence a kind of sample that
    is as frequent as the confidence leaves room for, 1 in 20 at 0.95.
    """
    if metric not in COUNTING:
        return max(LEAST_RESAMPLED, math.ceil(math.log(1 - confidence) / math.log(confidence)))
    if metric == "f1" and allowed > 0:
        return math.ceil(-math.log(1 - confidence) / allowed)
    return math.ceil(math.log(1 - confidence) / math.log1p(-allowed)) if 0 < allowed < 1 else MOST_SAMPLES


def likely_drop(metric: str, allowed: float, confidence: float, samples: int) -> float:
    """The largest true drop that so many samples are more likely than not to show to be within `allowed`.

    Samples lost are counted as by Poisson's law, whose median lies within k where its mean is below k + 2/3 (K. P.
    Choi, On the medians of gamma distributions, Proc. AMS 121, 1994); of `f1` as if all weighed alike. `allowed` itself
    where the samples show it of none, and where bounds are not known before there are differences.

    `decide` counts fewer where one answer is for a whole call or classes are rare (`counted_samples`), which is not
    known before anything was compared. By all samples what comes back is then too near `allowed`, and candidates are
    taken for likely that will not be accepted; what is accepted is not touched by it.
    """
    if metric not in COUNTING or samples < least_samples(metric, allowed, confidence):
        return allowed
    counts = range(math.ceil(allowed * samples) + 1)
    shown = bisect_right(counts, allowed + ROUNDING, key=lambda lost: _upper(metric, lost, samples, confidence))
    return min(allowed, (max(0, shown - 1) + MEAN_BEYOND_MEDIAN) / samples)


def _upper(metric: str, lost: float, samples: float, confidence: float) -> float:
    """Upper bound of the drop where `lost` of so many samples that weigh alike were seen to be."""
    if metric == "f1":
        return min(1.0, _poisson_bound(lost + 1, confidence) / samples)
    return _binomial_bound(round(lost), round(samples), confidence)


def _lower(metric: str, lost: float, samples: float, confidence: float) -> float:
    if metric == "f1":
        return _poisson_bound(lost, 1 - confidence) / samples if lost > 0 else 0.0
    return 1 - _binomial_bound(round(samples) - math.floor(lost + ROUNDING), round(samples), confidence)


def _binomial_bound(lost: int, samples: int, confidence: float) -> float:
    """Upper bound of a share of which `lost` in `samples` were seen."""
    # Loading it takes a fifth of a second that most jobs can do without.
    from scipy.special import betaincinv  # noqa: PLC0415

    return 1.0 if lost >= samples else float(betaincinv(lost + 1, samples - lost, confidence))


def _poisson_bound(count: float, share: float) -> float:
    """The mean of which `count` events or more are as likely as this share."""
    from scipy.special import gammaincinv  # noqa: PLC0415 # as `_binomial_bound`

    return float(gammaincinv(count, share))


def _samples_needed(
    compared: ComparisonAnswer, metric: str, bounds: tuple[float, float], allowed: float, confidence: float
) -> int | None:
    """With the same answers; None where the drop is just what is allowed, or of too many.

    Bounds come closer by the square root of the samples. That of counts, where few changed, does so sooner; and where
    answers changed both ways it knows of no more than what is lost between them, and the bootstrap's asks for more.
    """
    samples, drop = compared.sample_count, compared.drop or 0.0
    distance = allowed - drop
    if abs(distance) <= _rounding(metric, allowed):
        return None
    above, below = bounds
    counted = 0
    if metric in COUNTING and distance > 0:
        found = _counted(metric, max(0.0, drop), allowed, confidence)
        if found is None:
            return None
        counted = math.ceil(found * samples / max(1, counted_samples(compared, metric)))
        below = drop if compared.drop_below is None else compared.drop_below
    width = below - drop if distance > 0 else drop - above
    needed = max(samples + 1, counted, math.ceil(samples * (width / distance) ** 2))
    return needed if needed < MOST_SAMPLES else None


def _counted(metric: str, share: float, allowed: float, confidence: float) -> int | None:
    """The fewest samples, this `share` of them lost, of which such a bound is within `allowed`; None of too many.

    A multiple of a tenth more or less: that many more are not what it turns on.
    """
    samples = least_samples(metric, allowed, confidence)
    while samples < MOST_SAMPLES:
        if _upper(metric, math.ceil(share * samples), samples, confidence) <= allowed:
            return samples
        samples = math.ceil(1.1 * samples)
    return None
