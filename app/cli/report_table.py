"""A report as tables: the original beside the optimized file."""

from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.deployment_table import deployment_parts
from app.cli.figures import (
    SHARES,
    interval_text,
    job_metric_key,
    metric_key,
    milliseconds_text,
    quality_text,
    ratio_interval_text,
    same_metric,
)
from app.cli.output import bytes_text, printable, words
from app.cli.search_table import search_parts
from app.jobs.report import Candidate, Kernels, Measurement, Quality, Report, StepFile, Verdict

VERDICT_STYLES = {"met": "bold green", "unmet": "bold yellow", "undecidable": "bold yellow", "no_contract": "bold"}
KERNELS_SHOWN = 4

INTERVAL = "  95 % interval"
# The reason stands below the table.
NOT_MEASURED = "-"
SIZE_WORDS = ("smaller", "larger")
TIME_WORDS = ("faster", "slower")

Row = tuple[str, str, str, str]
Words = tuple[str, str]


def print_report(console: Console, report: Report) -> None:
    """Everything a person asks first; `--json` has the rest."""
    console.print(Group(*_parts(report)))


def _parts(report: Report) -> Iterator[RenderableType]:
    # Of a search the delivered one; the others are rows of its table.
    for candidate in report.candidates[:1] if report.search else report.candidates:
        yield _comparison(report.baseline, candidate)
        yield from _kernel_lines(report.baseline.kernels, candidate.measurement.kernels)
    yield from _chain(report)
    if report.search is not None:
        yield from search_parts(report, report.search)
    if report.deployment is not None:
        yield from deployment_parts(report.deployment)
    yield from _verdict_lines(report.verdict)
    for warning in report.warnings:
        yield words(f"warning: {warning}", style="yellow")
    for step in report.steps:
        state = "changed the model" if step.modified else "changed nothing"
        yield words(f"{step.pass_}: {state} in {step.seconds:.2f} s", style="dim")
        yield from (words(f"  {text}", style="dim") for text in step.notes)
    for role, text in report.data.items():
        yield words(f"{role} data: {text}", style="dim")
    yield words(_environment_text(report), style="dim")


def _comparison(baseline: Measurement, candidate: Candidate) -> Table:
    title = printable(" + ".join(candidate.recipe))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("original", "optimized", "change"):
        table.add_column(column, justify="right")
    for row in (*_cost_rows(baseline, candidate), *_quality_rows(baseline, candidate.measurement)):
        table.add_row(*(words(cell) for cell in row))
    table.add_section()
    for row in _kernel_rows(baseline.kernels, candidate.measurement.kernels):
        table.add_row(*(words(cell) for cell in row))
    return table


def _cost_rows(baseline: Measurement, candidate: Candidate) -> Iterator[Row]:
    measured = candidate.measurement

    def row(name: str, figure: Callable[[Measurement], float], text: Callable[[float], str], words: Words) -> Row:
        before, after = figure(baseline), figure(measured)
        return name, text(before), text(after), ratio_text(before / after if after else 0.0, words)

    yield row("size", lambda item: item.size_bytes, bytes_text, SIZE_WORDS)
    yield row("compressed size", lambda item: item.compressed_size_bytes, bytes_text, SIZE_WORDS)
    ratio = candidate.latency_ratio
    p50 = row("latency p50", lambda item: item.latency.p50_ms, milliseconds_text, TIME_WORDS)
    yield *p50[:3], ratio_text(ratio.value, TIME_WORDS)
    if spread := ratio_interval_text(ratio):
        yield INTERVAL, "", "", spread
    yield row("latency p90", lambda item: item.latency.p90_ms, milliseconds_text, TIME_WORDS)
    yield row("latency p99", lambda item: item.latency.p99_ms, milliseconds_text, TIME_WORDS)
    before, after = baseline.throughput_per_second, measured.throughput_per_second
    yield "throughput", f"{before:,.0f} /s", f"{after:,.0f} /s", ratio_text(after / before, ("more", "less"))
    yield row("peak memory", lambda item: item.peak_memory_bytes, bytes_text, SIZE_WORDS)
    # Beside what the process takes without a model, a small model disappears.
    yield row("  for the model", model_memory_bytes, bytes_text, SIZE_WORDS)
    yield row("load time", lambda item: item.load_ms, milliseconds_text, TIME_WORDS)


def _quality_rows(baseline: Measurement, measured: Measurement) -> Iterator[Row]:
    """Metrics against labels on both files; metrics against the original on the optimized one alone."""
    outputs = {quality.output for quality in measured.quality}
    for quality in measured.quality:
        name = quality.name.removesuffix("_db")
        if quality.output is not None and len(outputs) > 1:
            name = f"{name} of {quality.output}"
        original = None
        if quality.labels is None:
            name += " vs original"
        else:
            original = same_metric(baseline.quality, quality)
        yield (
            name,
            quality_text(original) if original else "",
            quality_text(quality),
            _difference(original, quality) if original else "",
        )
        intervals = [interval_text(item) if item else "" for item in (original, quality)]
        if any(intervals):
            yield INTERVAL, intervals[0], intervals[1], ""


def _kernel_rows(before: Kernels, after: Kernels) -> Iterator[Row]:
    yield "time in int8", f"{before.int8_share:.0%}", f"{after.int8_share:.0%}", ""
    yield "time in float", f"{before.float_share:.0%}", f"{after.float_share:.0%}", ""
    yield "time in conversions", f"{before.conversion_share:.0%}", f"{after.conversion_share:.0%}", ""
    yield "time in the rest", f"{before.other_share:.0%}", f"{after.other_share:.0%}", ""


def _kernel_lines(before: Kernels, after: Kernels) -> Iterator[Text]:
    for name, kernels in (("original", before), ("optimized", after)):
        shown = [
            f"{item.operator} x {item.node_count} ({item.kind}, {item.share:.0%})"
            for item in kernels.by_operator[:KERNELS_SHOWN]
        ]
        rest = len(kernels.by_operator) - len(shown)
        yield words(f"{name} ran {', '.join(shown)}{f' and {rest} more kinds' if rest else ''}")


def _chain(report: Report) -> Iterator[RenderableType]:
    """What each step of a chain left, beside the original."""
    files = [(f"{number} {step.pass_}", step.file) for number, step in enumerate(report.steps, 1) if step.file]
    if not files:
        return
    chosen = _chain_metrics(report)
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="step by step", title_justify="left"
    )
    table.add_column("after", overflow="fold")  # the one that gives way on a narrow terminal
    for column in ("size", "latency", "change", *(one.name.removesuffix("_db") for one in chosen)):
        table.add_column(words(column), justify="right", no_wrap=True)
    before = report.baseline
    originals = [same_metric(before.quality, one) for one in chosen]
    start = [bytes_text(before.size_bytes), milliseconds_text(before.latency.p50_ms), ""]
    table.add_row("the original", *start, *(quality_text(one) if one else "" for one in originals))
    for name, file in files:
        for row in _step_rows(name, file, chosen):
            table.add_row(*(words(cell) for cell in row))
    yield table
    for name, file in files:
        yield from (words(f"{name}: {text}", style="yellow") for text in (*file.unmeasured, *file.notes))


def _chain_metrics(report: Report) -> list[Quality]:
    """The job's metric and agreement on its output, as the delivered file has them."""
    key = job_metric_key(report)
    measured = report.candidates[0].measurement.quality
    wanted = dict.fromkeys([key, ("agreement", key[1], None)])
    return [one for sought in wanted for one in measured if metric_key(one) == sought]


def _step_rows(name: str, file: StepFile, chosen: list[Quality]) -> Iterator[tuple[str, ...]]:
    """One line, and one for the interval of the ratio."""
    found = [same_metric(file.quality, one) for one in chosen]
    missing = NOT_MEASURED if file.unmeasured and not file.quality else ""
    ratio = file.latency_ratio
    yield (
        name,
        bytes_text(file.size_bytes),
        milliseconds_text(file.latency.p50_ms) if file.latency else NOT_MEASURED,
        ratio_text(ratio.value, TIME_WORDS) if ratio else "",
        *(quality_text(one) if one else missing for one in found),
    )
    spread = ratio_interval_text(ratio) if ratio else ""
    if spread:
        yield INTERVAL, "", "", spread, *([""] * len(found))


def _verdict_lines(verdict: Verdict) -> Iterator[Text]:
    title = Text("\nverdict: ")
    title.append_text(words(verdict.outcome.replace("_", " "), style=VERDICT_STYLES.get(verdict.outcome, "bold")))
    title.append_text(words(f". {verdict.reason}"))
    yield title
    yield from (words(f"  - {cause}") for cause in verdict.causes)


def _environment_text(report: Report) -> str:
    place = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    return f"measured on {place.processor}, {place.threads} threads, batch {place.batch}; {versions}"


def model_memory_bytes(measured: Measurement) -> int:
    """Peak memory beyond what the process took before it loaded the model."""
    return max(measured.peak_memory_bytes - measured.baseline_memory_bytes, 0)


def _difference(before: Quality, after: Quality) -> str:
    if before.value is None or after.value is None:
        return ""
    change = after.value - before.value
    return f"{100 * change:+.2f} points" if after.name in SHARES else f"{change:+.4g}"


def ratio_text(ratio: float, words: Words) -> str:
    """`3.29 x smaller`, `1.40 x larger`, or `same` within half a percent."""
    if ratio <= 0:
        return ""
    if abs(ratio - 1) < 0.005:
        return "same"
    return f"{ratio:.2f} x {words[0]}" if ratio > 1 else f"{1 / ratio:.2f} x {words[1]}"
