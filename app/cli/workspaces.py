"""Workspaces and what each may take; like keys, on the database itself."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, database_session
from app.cli.output import JsonOption, note, print_json
from app.cli.tables import Column, print_table

if TYPE_CHECKING:
    from app.access.tables import WorkspaceRow
    from app.config import LimitSettings

app = typer.Typer(
    help="List workspaces and set what each may take. Works on the database: DATABASE_URL's, or an embedded service's.",
    no_args_is_help=True,
)
LimitOption = Annotated[int | None, typer.Option(min=0, help="0: no limit.")]


@app.command(name="list")
def list_workspaces(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List workspaces with their limits; in brackets those that hold for all."""
    from app.access import limits

    with database_session(data) as (session, settings):
        rows = limits.list_workspaces(session)
    if as_json:
        print_json([{"workspace": row.name} | {name: getattr(row, name) for name in limits.NAMES} for row in rows])
        return
    columns = (
        Column("workspace", flexible=True),
        *(Column(name.replace("_", " "), right=True) for name in limits.NAMES),
    )
    print_table(columns, (_cells(row, settings.limits) for row in rows))


@app.command()
def limit(
    workspace: Annotated[str, typer.Argument(help="The workspace's name.")],
    requests_per_minute: LimitOption = None,
    stored_bytes: LimitOption = None,
    queued_jobs: LimitOption = None,
    running_jobs: LimitOption = None,
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


def _cells(row: "WorkspaceRow", defaults: "LimitSettings") -> tuple[str, ...]:
    from app.access.limits import NAMES

    return row.name, *(_cell(getattr(row, name), getattr(defaults, name)) for name in NAMES)


def _cell(own: int | None, default: int) -> str:
    value = str((default if own is None else own) or "none")
    return f"({value})" if own is None else value
