"""Progress of an upload, a job or a download, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from app.cli.output import note, printable, stderr, words
from app.cli.trials_table import LIVE_HEADING, live_row
from app.client.shapes import trial_of

if TYPE_CHECKING:
    from app.client import Job, JobEvent

SMALL_BYTES = 4 << 20
WARNING_STYLE = "yellow"


@dataclass(frozen=True)
class Watch:
    """What to call while a job is waited for."""

    on_update: "Callable[[Job], None]"
    on_event: "Callable[[JobEvent], None]"


def phase_text(job: "Job") -> str:
    """What a person wants to read beside the bar."""
    if job.state == "queued":
        before = job.queue_position or 0
        return f"queued, {before} before it" if before else "queued"
    if job.state == "running":
        attempt = f" (attempt {job.attempt})" if job.attempt > 1 else ""
        return (job.phase or "starting").replace("_", " ") + attempt
    return str(job.state)


def eta_text(seconds: float | None) -> str:
    """`about 1:05 left`, or nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"about {minutes}:{rest:02d} left"


def log_text(event: "JobEvent") -> str | None:
    """The line for people in an event of type `log`, or of a search in `trial` and `best`; None in others."""
    message = _message(event)
    return printable(str(message)) if message else None


def _rows() -> "Callable[[JobEvent], list[str]]":
    """The lines of an event on a terminal: what a search tried as rows of a table, below its heading."""
    begun = False

    def lines(event: "JobEvent") -> list[str]:
        nonlocal begun
        trial = trial_of(event) if event.type == "trial" else None
        if trial is None:
            return [text] if (text := log_text(event)) else []
        heading = [] if begun else [LIVE_HEADING]
        begun = True
        return [*heading, printable(live_row(trial))]

    return lines


def _message(event: "JobEvent") -> object:
    tried = event.data.get("trial")
    if event.type == "trial" and isinstance(tried, dict):
        return f"{tried.get('name')}: {tried.get('explanation')}"
    if event.type == "best" and isinstance(tried, dict):
        return f"Best so far, kept as {event.data.get('file_name')}: {tried.get('name')}"
    return event.data.get("message") if event.type == "log" else None


def is_warning(event: "JobEvent") -> bool:
    return event.data.get("level") == "warning"


@contextmanager
def watching() -> Iterator[Watch]:
    """A bar on a terminal, the job's log lines above it; elsewhere a line for each of them and for every new phase."""
    console = stderr()
    if not console.is_terminal:
        yield Watch(_phase_lines(), _say_log)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("queued", total=1.0, eta="")

        def update(job: "Job") -> None:
            done = 1.0 if job.is_over else job.progress
            eta = "" if job.is_over else eta_text(job.eta_seconds)
            progress.update(task, completed=done, description=f"{printable(phase_text(job)):<22}", eta=eta)

        rows = _rows()

        def show(event: "JobEvent") -> None:
            for text in rows(event):
                progress.console.print(words(text, style=WARNING_STYLE if is_warning(event) else ""))

        yield Watch(update, show)


def _say_log(event: "JobEvent") -> None:
    if text := log_text(event):
        typer.secho(text, fg=WARNING_STYLE if is_warning(event) else None, err=True)


def _phase_lines() -> "Callable[[Job], None]":
    said: list[str] = []

    def update(job: "Job") -> None:
        text = phase_text(job)
        if not said or said[-1] != text:
            said.append(text)
            note(f"job {job.id}: {text}")

    return update


@contextmanager
def transferring(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the bytes done and in all; a bar on a terminal, for files worth one."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = stderr()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(printable(what), total=None, visible=False)

        def update(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=total >= SMALL_BYTES)

        yield update
