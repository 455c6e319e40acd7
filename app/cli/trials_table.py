"""What a search tried, as a table."""

from collections.abc import Sequence

from app.cli.tables import Column, print_table
from app.jobs.report import TrialReport

COLUMNS = (
    Column("candidate", flexible=True),
    Column("faster", right=True),
    Column("smaller", right=True),
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
    """By the samples for choosing: estimates, and nothing that a verdict says."""
    print_table(COLUMNS, [_row(trial) for trial in trials])


def live_row(trial: TrialReport) -> str:
    """One trial under LIVE_HEADING, on a line of its own."""
    name, *figures, contract, why_not = _row(trial)
    name = name if len(name) <= LIVE_NAME else f"{name[: LIVE_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    cells = "".join(f"{figure:>{2 + LIVE_FIGURE}}" for figure in figures)
    return f"{name:<{LIVE_NAME}}" + (f"  {why_not}" if why_not else f"{cells}  {contract}")


def _row(trial: TrialReport) -> tuple[str, ...]:
    if trial.outcome == "failed":
        return trial.name, "", "", "", "", trial.explanation
    speed = "" if trial.latency_ratio is None else f"{trial.latency_ratio.value:.2f} x"
    size = "" if trial.size_ratio is None else f"{trial.size_ratio:.2f} x"
    drop = "" if trial.drop is None else f"{trial.drop:.4g}"
    return (
        trial.name,
        speed,
        size,
        drop,
        ("kept" if trial.holds else "broken") + (", cached" if trial.cached else ""),
        "",
    )
