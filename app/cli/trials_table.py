"""What a search tried, as a table."""

from collections.abc import Sequence

from app.cli.tables import Column, print_table
from app.jobs.report import TrialReport

MEMORY = Column("less memory", right=True)
COLUMNS = (
    Column("candidate", flexible=True),
    Column("faster", right=True),
    Column("smaller", right=True),
    MEMORY,
    Column("drop", right=True),
    Column("contract"),
    Column("why not", flexible=True),
)
# Of rows that are printed one by one, while nobody knows those to come.
LIVE_NAME, LIVE_FIGURE = 40, 8
LIVE_HEADING = f"{'candidate':<{LIVE_NAME}}" + "".join(
    f"{name:>{2 + LIVE_FIGURE}}" for name in ("faster", "smaller", "drop")
)


def print_trials(trials: Sequence[TrialReport]) -> None:
    """By the samples for choosing: estimates, and nothing that a verdict says. Memory has a column where it counts."""
    with_memory = any(trial.memory_ratio is not None for trial in trials)
    columns = [column for column in COLUMNS if with_memory or column is not MEMORY]
    print_table(columns, [_row(trial, with_memory=with_memory) for trial in trials])


def live_row(trial: TrialReport) -> str:
    """One trial under LIVE_HEADING, on a line of its own; memory, where it counts, behind the rest."""
    name, *figures, contract, why_not = _row(trial, with_memory=False)
    name = name if len(name) <= LIVE_NAME else f"{name[: LIVE_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    cells = "".join(f"{figure:>{2 + LIVE_FIGURE}}" for figure in figures)
    memory = "" if trial.memory_ratio is None else f", {_ratio_text(trial.memory_ratio)} {MEMORY.name}"
    return f"{name:<{LIVE_NAME}}" + (f"  {why_not}" if why_not else f"{cells}  {contract}{memory}")


def _row(trial: TrialReport, *, with_memory: bool) -> tuple[str, ...]:
    failed = trial.outcome == "failed"
    speed = None if trial.latency_ratio is None else trial.latency_ratio.value
    contract = ("kept" if trial.holds else "broken") + (", cached" if trial.cached else "")
    return (
        trial.name,
        _ratio_text(speed),
        _ratio_text(trial.size_ratio),
        *([_ratio_text(trial.memory_ratio)] if with_memory else []),
        "" if trial.drop is None else f"{trial.drop:.4g}",
        "" if failed else contract,
        trial.explanation if failed else "",
    )


def _ratio_text(ratio: float | None) -> str:
    """Nothing of a trial that failed: it has no figures."""
    return "" if ratio is None else f"{ratio:.2f} x"
