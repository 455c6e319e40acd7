"""Probe: quality of a candidate beside its original, on data.

Both run on the same calls, one batch at a time; what is kept of them is in `scoring`.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.jobs.report import Quality
from worker.engine.evaluation import metrics
from worker.engine.evaluation.acceptance import COUNTING
from worker.engine.evaluation.bootstrap import (
    Drop,
    MacroF1,
    Mean,
    SqnrDb,
    Statistic,
    estimate,
    skewness_of,
    without_interval,
)
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.class_labels import guessing
from worker.engine.evaluation.influence import influence_on
from worker.engine.evaluation.pair import Pair
from worker.engine.evaluation.requests import Comparison, ComparisonAnswer
from worker.engine.evaluation.scoring import Columns, Scores
from worker.engine.feeds import Call, Feeds
from worker.engine.sessions import ModelFails, open_session, run_session

LABEL_METRICS = frozenset({"top1", "top5", "f1", "accuracy", "mse", "mae"})
FIGURES = ("metric_original", "metric_candidate", "drop", "drop_low", "drop_high", "drop_above", "drop_below")


@dataclass
class Examination:
    """One comparison under way."""

    request: Comparison
    pair: Pair
    feeds: Feeds
    scores: Scores
    warnings: list[str] = field(default_factory=list)


def compare(request: Comparison) -> ComparisonAnswer:
    """Means of metrics over samples, of both files and of the difference, with its interval: of as many as time allows.

    Raises:
        ModelFails: a file does not load or run.
        MetricMismatch: the metric fits neither output nor labels.

    """
    started = time.perf_counter()
    originals = open_session(Path(request.original), request.threads, device=request.device)
    pair = Pair(originals, open_session(Path(request.candidate), request.threads, device=request.device))
    labels = {name: stored.open() for name, stored in request.labels.items()}
    examination = Examination(request, pair, request.feed.open(), Scores(request.metric, labels))
    batch = _working_batch(examination)
    samples = _affordable(examination, batch, request.seconds - (time.perf_counter() - started))
    feeds, scores = examination.feeds, examination.scores
    for call in feeds.calls(batch, samples):
        left, right = pair.run(call)
        for name, original, candidate in zip(pair.names(), left, right, strict=True):
            scores.add(name, *_cut(original, candidate, call, feeds), call.samples)
        scores.count += len(call.samples)
    return _answer(examination)


def _working_batch(examination: Examination) -> int:
    """The batch asked for, or 1 where a batch was baked into the graph or an output has no batch axis."""
    wanted, feeds = examination.request.batch, examination.feeds
    if wanted == 1 or feeds.samples_per_call(wanted) != wanted or feeds.sample_count < wanted:
        return 1
    try:
        outputs = run_session(examination.pair.original, feeds.call(np.arange(wanted)).feed)
        if all(isinstance(output, np.ndarray) and output.ndim and len(output) == wanted for output in outputs):
            return wanted
    except ModelFails:
        pass
    examination.warnings.append(
        f"The model does not return one row a sample at batch {wanted}; quality was measured at batch 1."
    )
    return 1


def _affordable(examination: Examination, batch: int, seconds: float) -> np.ndarray:
    """All samples, or as many, drawn at random, as fit into the time."""
    feeds = examination.feeds
    everything = np.arange(feeds.sample_count)
    step = feeds.samples_per_call(batch)
    call = feeds.call(everything[:step])
    started = time.perf_counter()
    examination.pair.run(call)
    before = time.perf_counter()
    examination.pair.run(call)
    now = time.perf_counter()
    calls = max(1, int((seconds - (now - started)) / max(now - before, 1e-6)))
    if calls * step >= len(everything):
        return everything
    chosen = np.random.default_rng(examination.request.seed).choice(everything, calls * step, replace=False)
    examination.warnings.append(
        f"Time allowed for {len(chosen)} of {len(everything)} samples; quality was measured on those, drawn at random."
    )
    return np.asarray(np.sort(chosen))


def _cut(original: Any, candidate: Any, call: Call, feeds: Feeds) -> tuple[np.ndarray | None, np.ndarray | None]:
    """An output of both, `(samples of the call, ...)`, padding cut off, or `(1, ...)` where the original's has no such
    axis and answers for the whole call; None for what is no tensor of numbers or text.
    """
    if not (_is_tensor(original) and _is_tensor(candidate)):
        return None, None
    count = len(call.samples)
    rows = feeds.fixed_batch or count
    if feeds.whole or not original.ndim or len(original) != rows:
        return original[None], candidate[None]
    if candidate.ndim and len(candidate) == rows:
        return original[:count], candidate[:count]
    # Of another shape in every sample.
    return original[:count], np.broadcast_to(candidate, (count, *candidate.shape))


def _is_tensor(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind in "f" + metrics.EXACT


def _statistics(columns: Columns, *, one_class: bool = False) -> dict[str, Statistic]:
    """By metric; where there is but one top class, samples agree that keep enough besides."""
    joined = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    if one_class:
        joined["agreement"] = joined["agreement"] * metrics.keeps_enough(joined["signal"], joined["noise"])
    found: dict[str, Statistic] = {
        name: Mean(joined[name])
        for name in ("top1", "accuracy", "top5", "mse", "mae", "agreement", "cosine")
        if name in joined
    }
    if "seen" in joined:
        found["f1"] = MacroF1(joined["owners"], joined["classes"], joined["hits"], joined["seen"])
    if "signal" in joined:
        found["sqnr_db"] = SqnrDb(joined["signal"], joined["noise"])
    return found


def _answer(examination: Examination) -> ComparisonAnswer:
    scores, request, names = examination.scores, examination.request, examination.pair.names()
    fidelity = {
        name: _statistics(columns, one_class=scores.is_one_class(name)) for name, columns in scores.outputs.items()
    }
    labelled = {key: _statistics(columns) for key, columns in scores.labelled.items()}
    # A NaN that the original does not have spoils what is computed over the other elements. Labels: `scoring`.
    for name, count in scores.broken.items():
        if count:
            fidelity[name] = {"agreement": fidelity[name]["agreement"]}
    quality: dict[str, list[Quality]] = {"original": [], "candidate": []}
    for key, statistics in labelled.items():
        label, which = key.rsplit("|", 1)
        output = str(request.metric.output) if label == request.metric.labels else label
        quality[which].extend(_quality(statistics, output, label, scores.count, request))
    for name in names:
        quality["candidate"].extend(_quality(fidelity.get(name, {}), name, None, scores.count, request))
    return ComparisonAnswer(
        original=quality["original"],
        candidate=quality["candidate"],
        sample_count=scores.count,
        warnings=[*examination.warnings, *_warnings(scores), *_doubts(examination, quality["original"])],
        **_contract_figures(scores, request, fidelity, labelled),
    )


def _quality(
    statistics: dict[str, Statistic], output: str, labels: str | None, samples: int, request: Comparison
) -> list[Quality]:
    # Classes are counted anew in each resample, which only who asks for F1 waits for.
    asked = (request.metric.name, request.metric.labels) == ("f1", labels)
    drawn = {name: one for name, one in statistics.items() if asked or name != "f1"}
    estimates = {name: without_interval(one, samples) for name, one in statistics.items() if name not in drawn}
    estimates |= zip(drawn, estimate(list(drawn.values()), samples, request.seed), strict=True)
    return [
        Quality(
            name=name,
            output=output,
            labels=labels,
            value=estimates[name].value,
            low=estimates[name].low,
            high=estimates[name].high,
            sample_count=_scored(one, samples),
        )
        for name, one in statistics.items()
    ]


def _contract_figures(
    scores: Scores,
    request: Comparison,
    fidelity: dict[str, dict[str, Statistic]],
    labelled: dict[str, dict[str, Statistic]],
) -> dict[str, Any]:
    """The job's metric of both files and the paired difference."""
    name = str(request.metric.name)
    if name in LABEL_METRICS:
        before = labelled.get(f"{request.metric.labels}|original", {}).get(name)
        after = labelled.get(f"{request.metric.labels}|candidate", {}).get(name)
    else:
        before, after = _perfect(name), fidelity.get(str(request.metric.output), {}).get(name)
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    if before is None or after is None:
        return figures | {"changed_samples": 0, "scored_samples": 0}

    lost = Drop(name, before, after)
    original, candidate, drop = estimate([before, after, lost], scores.count, request.seed, request.confidence)
    # What is counted has a bound of its own, which says more where little changed: see `acceptance`.
    skewness = None if name in COUNTING or drop.value is None else skewness_of(lost, scores.count)
    changed = 0
    if isinstance(after, Mean):
        reference = before.scores if isinstance(before, Mean) else np.ones_like(after.scores)
        changed = int(np.sum((reference != after.scores) & ~np.isnan(after.scores)))
    return {
        "metric_original": original.value,
        "metric_candidate": candidate.value,
        "drop": drop.value,
        "drop_low": drop.low,
        "drop_high": drop.high,
        "drop_above": drop.bound(1 - request.confidence, skewness),
        "drop_below": drop.bound(request.confidence, skewness),
        "changed_samples": changed,
        "scored_samples": _scored(after, scores.count),
        "influence": influence_on(before) if isinstance(before, MacroF1) else None,
    }


def _scored(statistic: Statistic, samples: int) -> int:
    if isinstance(statistic, Mean | SqnrDb):
        return int(np.sum(~np.isnan(statistic.scores if isinstance(statistic, Mean) else statistic.noise)))
    return len(np.unique(statistic.owners)) if isinstance(statistic, MacroF1) else samples


@dataclass(frozen=True)
class _Perfect:
    """The original against itself."""

    value: float

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return np.full(len(weights), self.value)

    def pooled(self, _groups: np.ndarray) -> "_Perfect":
        return self


def _perfect(name: str) -> Statistic:
    return _Perfect(np.inf if name == "sqnr_db" else 1.0)


def _warnings(scores: Scores) -> list[str]:
    found = [
        f"Output {name!r} is no tensor of numbers or text; it was not compared." for name in sorted(scores.skipped)
    ]
    found += [
        f"Output {name!r} has no axis of samples: it is one answer for all those of a call, and counts once a call."
        for name in sorted(scores.of_calls)
    ]
    for name, count in scores.not_finite.items():
        if count:
            found.append(f"Output {name!r} of the original is NaN or infinite in {count} of {scores.count} samples.")
    for name, count in scores.reshaped.items():
        if count:
            found.append(
                f"Output {name!r} of the optimized model has another shape than the original's in {count} of "
                f"{scores.count} samples, as where another number of boxes is found: it counts as changed throughout "
                "there, and against labels as infinitely wrong, or missed."
            )
    for name, count in scores.broken.items():
        if count:
            found.append(
                f"Output {name!r} of the optimized model is NaN or infinite in {count} of {scores.count} samples where "
                "the original is finite: cosine and SQNR are not given for it, and against labels those are infinitely "
                "wrong, or missed."
            )
    return found


def _doubts(examination: Examination, original: list[Quality]) -> list[str]:
    """What is to be said of the job's metric of the original: a list of no or one sentence."""
    metric, scores = examination.request.metric, examination.scores
    if metric.name == "agreement" and scores.is_one_class(str(metric.output)):
        return [
            f"The top class of the original's output {metric.output!r} is the same in nearly all samples, so that "
            f"agreement on it says little: a sample agrees where it also keeps {metrics.LEAST_DB:g} dB of the "
            f"original. If {metric.output!r} holds no scores of classes, name another metric, as sqnr_db or cosine."
        ]
    if metric.name not in metrics.CLASSIFICATION:
        return []
    of_the_job = [one for one in original if (one.name, one.labels) == (metric.name, metric.labels)]
    return [words for one in of_the_job if (words := guessing(one, scores.classes)) is not None]


def main() -> None:
    serve_probe(Comparison, compare)


if __name__ == "__main__":
    main()
