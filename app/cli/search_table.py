"""The search of a report as tables: the front, why the winner won, and why each of the others lost."""

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.figures import MetricKey, job_metric_key, metric_key, quality_text, ratio_interval_text
from app.cli.output import bytes_text, words
from app.jobs.report import Candidate, Measurement, Report, SearchReport, TrialReport

STYLES = {"winner": "bold green", "front": "green", "failed": "yellow"}
WINNER = "*"


def search_parts(report: Report, search: SearchReport) -> Iterator[RenderableType]:
    """The front was measured in one run, on samples that the search had not seen; what was tried, while it went on."""
    yield _front(report, with_memory=any(trial.memory_ratio is not None for trial in search.trials))
    yield Text("* is delivered; `lathe promote` picks another one", style="dim")
    yield Text("\nwhy this one", style="bold")
    yield from (words(f"  {sentence}") for sentence in search.explanation)
    yield _trials(search)
    if any(trial.cached for trial in search.trials):
        yield Text("cached: an earlier search built and measured it; the front was measured in this one", style="dim")


def _front(report: Report, *, with_memory: bool) -> Table:
    metric = job_metric_key(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="the front", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("candidate", overflow="fold")  # the one that gives way on a narrow terminal
    memory = ("memory",) if with_memory else ()
    for column in ("faster", "size", *memory, metric[0].removesuffix("_db"), "drop"):
        table.add_column(words(column), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    before = report.baseline
    table.add_row(
        "", "the original", "", *_bytes(before, with_memory=with_memory), _metric_text(before, metric), "", ""
    )
    for number, candidate in enumerate(report.candidates):
        style = STYLES["winner"] if number == 0 else ""
        cells = _front_row(candidate, metric, style, with_memory=with_memory)
        table.add_row(Text(WINNER if number == 0 else "", style=style), *cells)
    return table


def _front_row(candidate: Candidate, metric: MetricKey, style: str, *, with_memory: bool) -> tuple[Text, ...]:
    ratio = candidate.latency_ratio
    faster = words(f"{ratio.value:.2f} x", style)
    if spread := ratio_interval_text(ratio):
        faster.append(f"\n{spread}")
    rest = (
        *_bytes(candidate.measurement, with_memory=with_memory),
        _metric_text(candidate.measurement, metric),
        "" if candidate.drop is None else f"{candidate.drop:.4g}",
        candidate.verdict.outcome.replace("_", " ") if candidate.verdict else "",
    )
    return words(candidate.name, style), faster, *(words(cell, style) for cell in rest)


def _bytes(measured: Measurement, *, with_memory: bool) -> list[str]:
    """Of the file, and of the process that runs it."""
    counts = [measured.size_bytes, *([measured.peak_memory_bytes] if with_memory else [])]
    return [bytes_text(count) for count in counts]


def _metric_text(measured: Measurement, metric: MetricKey) -> str:
    return next((quality_text(one) for one in measured.quality if metric_key(one) == metric), "")


def _trials(search: SearchReport) -> Table:
    title = f"what was tried ({len(search.trials)} in {search.seconds:.0f} s)"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", show_header=False)
    table.add_column(overflow="fold", max_width=36)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for trial in search.trials:
        table.add_row(*_trial_row(trial))
    return table


def _trial_row(trial: TrialReport) -> tuple[Text, ...]:
    outcome = words(trial.outcome, style=STYLES.get(trial.outcome, ""))
    if trial.cached:
        outcome.append("\ncached", style="dim")
    return words(trial.name), outcome, words(trial.explanation)
