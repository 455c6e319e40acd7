"""The deployment check of a report as tables: every check, and every input at the edge that did not pass."""

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table

from app.cli.output import words
from app.jobs.report import Deployment

STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def deployment_parts(deployment: Deployment) -> Iterator[RenderableType]:
    """Every check with its outcome and words; the words of edge inputs that failed are among them already."""
    title = f"deployment check ({deployment.seconds:.0f} s)"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for check in deployment.checks:
        name = check.name.replace("_", " ")
        table.add_row(words(name), words(check.outcome, style=STYLES.get(check.outcome, "")), words(check.words))
    yield table
    if deployment.modules:
        yield words(f"modules of the fresh process: {', '.join(deployment.modules)}", style="dim")
