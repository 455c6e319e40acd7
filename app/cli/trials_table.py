"""What a search tried, as a table."""

from collections.abc import Sequence

from app.cli.tables import Column, print_table
from app.jobs.report import Attempt

COLUMNS = (
    Column("candidate", flexible=True),
    Column("faster", right=True),
    Column("smaller", right=True),
    Column("drop", right=True),
    Column("contract"),
    Column("why not", flexible=True),
)


def print_trials(trials: Sequence[Attempt]) -> None:
    """By the samples for choosing: estimates, and nothing that a verdict says."""
    print_table(COLUMNS, [_row(trial) for trial in trials])


def _row(trial: Attempt) -> tuple[str, ...]:
    if trial.outcome == "failed":
        return trial.name, "", "", "", "", trial.explanation
    speed = "" if trial.latency_ratio is None else f"{trial.latency_ratio.value:.2f} x"
    size = "" if trial.size_ratio is None else f"{trial.size_ratio:.2f} x"
    drop = "" if trial.drop is None else f"{trial.drop:.4g}"
    return trial.name, speed, size, drop, "kept" if trial.holds else "broken", ""
