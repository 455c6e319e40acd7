"""`lathe keys`: made and revoked on the database itself, for whoever runs the service."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, database_session
from app.cli.output import JsonOption, note, print_json
from app.cli.tables import Column, age_text, print_table

if TYPE_CHECKING:
    from app.access.tables import ApiKeyRow

COLUMNS = (
    Column("prefix"),
    Column("workspace", flexible=True),
    Column("name", flexible=True),
    Column("scopes", flexible=True),
    Column("created"),
    Column("last used"),
    Column("end", flexible=True),
)
app = typer.Typer(
    help="Make, list and revoke API keys. Works on the database: DATABASE_URL's, or an embedded service's.",
    no_args_is_help=True,
)
WorkspaceOption = Annotated[str, typer.Option(help="Workspace that the key opens; made if it is new.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    workspace: WorkspaceOption = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; repeat it. By default the first two.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires; by default never.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: it is shown this once."""
    from app.access import service
    from app.access.keys import SCOPES

    scopes = list(dict.fromkeys(scope or ["read", "write"]))
    if unknown := [item for item in scopes if item not in SCOPES]:
        fail(f"there is no scope `{unknown[0]}`: the scopes are {', '.join(SCOPES)}", ExitCode.USAGE)
    with database_session(data) as (session, settings):
        row, text = service.create_key(
            session,
            workspace=workspace,
            name=name,
            scopes=scopes,
            lifetime=None if days is None else timedelta(days=days),
            secret_key=settings.secret_key.get_secret_value(),
        )
        shown = _shown(row, workspace)
    if as_json:
        print_json({**shown, "key": text})
        return
    typer.echo(text)
    note(f"Key {row.prefix} of workspace {workspace}, for {', '.join(scopes)}. It is not shown again.")


@app.command(name="list")
def list_keys(
    workspace: Annotated[str | None, typer.Option(help="Only keys of this workspace.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, by their prefixes."""
    from app.access import service

    with database_session(data) as (session, _):
        rows = service.list_keys(session, workspace)
    if as_json:
        print_json([_shown(row, name) for row, name in rows])
        return
    print_table(COLUMNS, (_cells(row, name) for row, name in rows))


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, or the key.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key; running services forget it within seconds."""
    from app.access import keys, service

    parts = keys.split(prefix)
    prefix = parts[0] if parts else prefix
    with database_session(data) as (session, _):
        revoked = service.revoke_key(session, prefix)
    if not revoked:
        fail(f"there is no live key `{prefix}`: `lathe keys list` shows the prefixes", ExitCode.REFUSED)
    if as_json:
        print_json({"prefix": prefix, "revoked": True})
    else:
        note(f"key {prefix} is revoked")


def _shown(row: "ApiKeyRow", workspace: str) -> dict[str, Any]:
    """What may be known of a key once it is made."""
    moments = {name: getattr(row, name) for name in ("created_at", "last_used_at", "expires_at", "revoked_at")}
    return {
        "prefix": row.prefix,
        "workspace": workspace,
        "name": row.name,
        "scopes": row.scopes,
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }


def _cells(row: "ApiKeyRow", workspace: str) -> tuple[str, ...]:
    return (
        row.prefix,
        workspace,
        row.name,
        ", ".join(row.scopes),
        age_text(row.created_at),
        age_text(row.last_used_at) or "never",
        _end_text(row),
    )


def _end_text(row: "ApiKeyRow") -> str:
    """How long it opens anything."""
    if row.revoked_at is not None:
        return f"revoked {age_text(row.revoked_at)}"
    if row.expires_at is None:
        return "no end"
    return f"{'expires' if row.expires_at > datetime.now(UTC) else 'expired'} {age_text(row.expires_at)}"
