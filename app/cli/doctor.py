"""`lathe doctor`: what is wrong with an installation, and what to do about it."""

import os
from typing import TYPE_CHECKING

import typer

from app.cli.connection import url_and_key
from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, folder_of_a_service, running_settings
from app.cli.output import JsonOption, print_json, printable, stdout
from app.extras import install_command

if TYPE_CHECKING:
    from pathlib import Path

    from app.config import Settings
    from app.diagnosis.finding import Finding

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(doctor)


def doctor(data: DataOption = None, json: JsonOption = False) -> None:
    """Look at every part of an installation, from where it runs, and say what is wrong and what helps.

    The installation is the one that DATABASE_URL, REDIS_URL and STORAGE_URL name, or an embedded one. Nothing is
    changed, but for a file that is stored and deleted again. Exits with 1 where there is a problem; warnings alone are
    no reason.
    """
    from app.diagnosis import surroundings
    from app.diagnosis.installation import installation

    found = surroundings.unknown_variables(os.environ)
    settings, refused = _settings(data)
    found += refused
    if settings is not None:
        found += installation(settings)
    found += surroundings.api(*url_and_key(data))
    if json:
        print_json(found)
    else:
        _print(found)
    if any(finding.level == "problem" for finding in found):
        raise typer.Exit(ExitCode.FAILED)


def _settings(data: "Path | None") -> "tuple[Settings | None, list[Finding]]":
    """The installation's, and what keeps them from being had."""
    from pydantic import ValidationError

    from app.config import get_settings, what_is_wrong
    from app.diagnosis.finding import problem

    if data is None and os.environ.get("DATABASE_URL"):
        try:
            return get_settings(), []
        except ValidationError as error:
            remedy = "README.md lists the variables and what they may be."
            return None, [problem("settings", what, remedy) for what in what_is_wrong(error)]
    try:
        from app.embedded import is_running
    except ImportError as error:
        fail(f"set DATABASE_URL, or install `{error.name}`: {install_command('embedded')}", ExitCode.USAGE)
    folder = folder_of_a_service(data)
    if is_running(folder):
        return running_settings(folder), []
    return None, [problem("service", f"The service in {folder} does not run.", "Start it: `lathe serve`.")]


def _print(found: "list[Finding]") -> None:
    from rich.markup import escape

    console = stdout()
    width = max(len(finding.name) for finding in found)
    for finding in found:
        console.print(
            f"{MARKS[finding.level]:<20} {escape(finding.name):<{width}}  {escape(printable(finding.detail))}"
        )
        if finding.remedy is not None:
            console.print(f"{'':<8} {'':<{width}}  {escape(finding.remedy)}", style="bold")
