"""Workspaces and what each may take; like keys, on the database itself."""

from typing import Annotated

import typer

from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, database_session
from app.cli.output import JsonOption, note, print_json
from app.cli.tables import Column, print_table

app = typer.Typer(
    help="List workspaces and set what each may take. Works on the database: DATABASE_URL's, or an embedded service's.",
    no_args_is_help=True,
)
DaysOption = Annotated[int | None, typer.Option(min=0, max=36_500, help="0: for ever.")]
CountOption = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="0: no limit.")]
BytesOption = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="0: no limit.")]


@app.command(name="list")
def list_workspaces(
    retention: Annotated[bool, typer.Option("--retention", help="Show days in place of limits.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List workspaces with their limits, or for how many days they keep things; in brackets what holds for all."""
    from app.access.limits import NAMES, list_workspaces
    from app.blobs.retention import NAMES as DAYS

    with database_session(data) as (session, settings):
        rows = list_workspaces(session)
    if as_json:
        print_json([{"workspace": row.name} | {name: getattr(row, name) for name in (*NAMES, *DAYS)} for row in rows])
        return
    names, defaults = (DAYS, settings.retention) if retention else (NAMES, settings.limits)
    columns = (Column("workspace", flexible=True), *(Column(name.replace("_", " "), right=True) for name in names))
    lines = ((row.name, *(_cell(getattr(row, name), getattr(defaults, name)) for name in names)) for row in rows)
    print_table(columns, lines)


@app.command()
def limit(
    workspace: Annotated[str, typer.Argument(help="The workspace's name.")],
    requests_per_minute: CountOption = None,
    stored_bytes: BytesOption = None,
    queued_jobs: CountOption = None,
    running_jobs: CountOption = None,
    reset: Annotated[bool, typer.Option("--reset", help="First give it back what holds for all.")] = False,
    data: DataOption = None,
) -> None:
    """Set what a workspace may take. Running services follow within seconds."""
    from app.access import limits, service

    given = (requests_per_minute, stored_bytes, queued_jobs, running_jobs)
    asked = dict(zip(limits.NAMES, given, strict=True))
    values = {name: value for name, value in asked.items() if reset or value is not None}
    if not values:
        fail("nothing to set: name a limit, or --reset", ExitCode.USAGE)
    with database_session(data) as (session, _):
        if not service.set_limits(session, workspace, values):
            fail(f"there is no workspace `{workspace}`: `lathe workspaces list` shows them", ExitCode.REFUSED)
    note(f"the limits of workspace {workspace} are set")


@app.command()
def retain(
    workspace: Annotated[str, typer.Argument(help="The workspace's name.")],
    models_days: DaysOption = None,
    datasets_days: DaysOption = None,
    artifacts_days: DaysOption = None,
    reset: Annotated[bool, typer.Option("--reset", help="First give it back what holds for all.")] = False,
    data: DataOption = None,
) -> None:
    """Set for how many days a workspace keeps what it no longer uses. Housekeeping deletes it within minutes then."""
    from app.access import service
    from app.access.tables import Action
    from app.blobs.retention import NAMES

    asked = dict(zip(NAMES, (models_days, datasets_days, artifacts_days), strict=True))
    values = {name: value for name, value in asked.items() if reset or value is not None}
    if not values:
        fail("nothing to set: name a number of days, or --reset", ExitCode.USAGE)
    with database_session(data) as (session, _):
        if not service.set_limits(session, workspace, values, Action.RETENTION_CHANGED):
            fail(f"there is no workspace `{workspace}`: `lathe workspaces list` shows them", ExitCode.REFUSED)
    note(f"what workspace {workspace} keeps is set")


def _cell(own: int | None, default: int) -> str:
    value = str((default if own is None else own) or "none")
    return f"({value})" if own is None else value
