"""Results as markdown, and the conditions that they hold under."""

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from benchmarks.calibration_cost import Cost
from benchmarks.standings import LEAST_SQNR_DB, MOST_ACCURACY_LOST, Standing, best, best_peer, default_recipe
from benchmarks.subjects import Plan, Scale
from worker.engine.processor import instruction_sets, needs_reduced_range, processor_name

PACKAGES = ("onnxruntime", "onnx", "numpy", "torch", "transformers", "nncf", "torch-pruning")
MIB = 1 << 20
NONE = "-"


@dataclass(frozen=True)
class Comparison:
    """Everything measured of one model."""

    plan: Plan
    original: Standing
    standings: list[Standing]


def conditions(threads: int, scale: Scale, rounds: int) -> list[str]:
    """Machine, versions, date and method, a line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    bits = "plain 8-bit weights may saturate here" if needs_reduced_range() else "8-bit weights"
    versions = [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {processor_name()}, {os.cpu_count()} cores, {threads} used, "
        f"{memory:.0f} GiB; {', '.join(instruction_sets()) or 'no instruction sets known'} ({bits}).",
        f"{', '.join(versions)}.",
        f"Batch 1 where no other is told; medians of {rounds} rounds by turns, with the smallest and the largest. "
        f"Calibrated by all on the same {scale.random_calibration} random samples, or {scale.digit_calibration} digits "
        f"of those trained on; judged on {scale.random_held_out} others, or {scale.digit_held_out} digits kept. SQNR "
        "and accuracy are those of batch 1. Optimization: seconds without imports; peak memory of its process, "
        "libraries included.",
        f"The best of several is the fastest of those with at least {LEAST_SQNR_DB:.0f} dB or, where there are labels, "
        f"at most {MOST_ACCURACY_LOST * 100:.0f} point of accuracy lost.",
    ]


def entry_table(comparison: Comparison) -> list[str]:
    """Every entry of one model."""
    lines = [
        f"### {comparison.plan.title}",
        "",
        "| file | size MiB | ms | speed-up | SQNR dB | accuracy | optimized in s | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    everyone = [comparison.original, *comparison.standings]
    winner = best(comparison.original, comparison.standings)
    return [*lines, *(_entry_line(one, comparison.original, one is winner) for one in everyone)]


def summary(comparisons: Sequence[Comparison]) -> list[str]:
    """One line a model: the best peer, Lathe's default recipe, and the one over the other."""
    lines = [
        "| model | float ms | best peer | speed-up | fidelity | Lathe, default recipe | speed-up | fidelity "
        "| Lathe over best peer | best file | aim |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*lines, *(_summary_line(one) for one in comparisons)]


def calibration_lines(costs: Sequence[Cost]) -> list[str]:
    """A line a model."""
    first = costs[0]
    return [
        f"| calibration of | peak MiB, {first.few} samples | {first.many} samples | ratio, aim <= 1.10 "
        "| time over plain forward passes, aim <= 1.5 |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {cost.title} | {cost.few_peak_bytes / MIB:.0f} | {cost.many_peak_bytes / MIB:.0f} "
            f"| {cost.many_peak_bytes / cost.few_peak_bytes:.2f} "
            f"| {_spread(cost.ratios)}, {cost.timed} samples{_over(cost.passes)} |"
            for cost in costs
        ),
    ]


def _over(passes: float) -> str:
    return "" if passes == 1 else f", {passes:.0f} passes"


def fidelity_words(standing: Standing, original: Standing) -> str:
    """`98.35 % (-0.10)` where there are labels, else `35.1 dB`."""
    if standing.accuracy is not None and original.accuracy is not None:
        return f"{standing.accuracy:.2%} ({(standing.accuracy - original.accuracy) * 100:+.2f})"
    return _decibels(standing) if standing.sqnr_db is None else f"{_decibels(standing)} dB"


def _entry_line(standing: Standing, original: Standing, wins: bool) -> str:
    title = f"**{standing.entry.title}**" if wins else standing.entry.title
    if standing.failure is not None:
        return f"| {title} | {standing.failure.replace('|', '/')} |{' |' * 6}"
    title += " (left unchanged)" if standing.is_unchanged else ""
    is_original = standing is original
    accuracy = NONE if standing.accuracy is None else f"{standing.accuracy:.2%}"
    cells = [
        title,
        f"{standing.size_bytes / MIB:.2f}",
        f"{statistics.median(standing.medians_ms):.3f}",
        NONE if is_original else _spread(standing.speeds(original)),
        NONE if is_original else _decibels(standing),
        accuracy,
        NONE if standing.seconds is None else f"{standing.seconds:.1f}",
        NONE if standing.peak_bytes is None else f"{standing.peak_bytes / MIB:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _summary_line(comparison: Comparison) -> str:
    original, standings = comparison.original, comparison.standings
    peer, ours = best_peer(original, standings), default_recipe(original, standings)
    winner = best(original, standings)
    ratio = NONE
    if peer is not None and ours is not None:
        ratio = _spread([a / b for a, b in zip(peer.medians_ms, ours.medians_ms, strict=True)])
    cells = [
        comparison.plan.title,
        f"{statistics.median(original.medians_ms):.3f}",
        *_three_cells(peer, original),
        *_three_cells(ours, original),
        ratio,
        NONE if winner is None else winner.entry.title,
        comparison.plan.aim,
    ]
    return f"| {' | '.join(cells)} |"


def _three_cells(standing: Standing | None, original: Standing) -> list[str]:
    if standing is None:
        return ["none that is faithful", NONE, NONE]
    fidelity = fidelity_words(standing, original)
    if not standing.is_faithful(original):
        fidelity += ", too little"
    unchanged = " (left unchanged)" if standing.is_unchanged else ""
    return [standing.entry.title + unchanged, _spread(standing.speeds(original)), fidelity]


def _decibels(standing: Standing) -> str:
    return "exact" if standing.sqnr_db is None else f"{standing.sqnr_db:.1f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
