"""`lathe webhooks`: made and deleted on the database itself, for whoever runs the service; `/v1/webhooks` for keys."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, database_session
from app.cli.output import JsonOption, note, print_json
from app.cli.tables import Column, age_text, print_table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

COLUMNS = (Column("url", flexible=True), Column("created"))
DELIVERY_COLUMNS = (
    Column("type"),
    Column("state"),
    Column("attempts", right=True),
    Column("written"),
    Column("problem", flexible=True),
)
app = typer.Typer(
    help="Tell other services when jobs end. Works on the database: DATABASE_URL's, or an embedded service's.",
    no_args_is_help=True,
)
WorkspaceOption = Annotated[str, typer.Option(help="The workspace whose jobs are meant.")]
WebhookArgument = Annotated[UUID, typer.Argument(help="The webhook's id.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="An https URL that is reached from the internet.")],
    workspace: WorkspaceOption = "default",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have an address told of every optimization that ends. Prints its secret: it is shown this once."""
    from app.errors import AddressRefused, TooManyWebhooks
    from app.webhooks import service
    from app.webhooks.addresses import checked_addresses, read_url
    from app.webhooks.signing import secret_of

    try:
        with database_session(data) as (session, settings):
            address = read_url(url, settings.webhooks)
            checked_addresses(address, settings.webhooks)
            row = service.create(session, _workspace_id(session, workspace), str(address))
            secret = secret_of(row.id, settings.secret_key.get_secret_value())
    except (AddressRefused, TooManyWebhooks) as refused:
        fail(f"{refused.detail} {refused.remedy}", ExitCode.REFUSED)
    if as_json:
        print_json({"id": str(row.id), "url": row.url, "workspace": workspace, "secret": secret})
        return
    typer.echo(secret)
    note(f"Webhook {row.id} of workspace {workspace}. Its secret is not shown again.")


@app.command(name="list")
def list_webhooks(workspace: WorkspaceOption = "default", data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the webhooks of a workspace."""
    from app.webhooks import service

    with database_session(data) as (session, _):
        rows, _next = service.list_page(session, _workspace_id(session, workspace), limit=service.MOST, cursor=None)
    if as_json:
        shown: list[dict[str, Any]] = [
            {"id": str(row.id), "url": row.url, "created_at": row.created_at.isoformat()} for row in rows
        ]
        print_json(shown)
        return
    print_table(COLUMNS, ((row.url, age_text(row.created_at)) for row in rows), [str(row.id) for row in rows])


@app.command()
def delete(webhook: WebhookArgument, workspace: WorkspaceOption = "default", data: DataOption = None) -> None:
    """Delete a webhook with the messages that wait for it."""
    from app.errors import NotFound
    from app.webhooks import service

    try:
        with database_session(data) as (session, _):
            service.remove(session, _workspace_id(session, workspace), webhook)
    except NotFound as missing:
        fail(f"{missing.detail} `lathe webhooks list` shows them", ExitCode.REFUSED)
    note(f"webhook {webhook} is deleted")


@app.command()
def deliveries(
    webhook: WebhookArgument,
    workspace: WorkspaceOption = "default",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was sent to a webhook, and what became of it."""
    from app.errors import NotFound
    from app.webhooks import service

    try:
        with database_session(data) as (session, _):
            found, _next = service.list_deliveries(
                session, _workspace_id(session, workspace), webhook, state=None, limit=limit, cursor=None
            )
    except NotFound as missing:
        fail(f"{missing.detail} `lathe webhooks list` shows them", ExitCode.REFUSED)
    if as_json:
        print_json(found)
        return
    lines = [(one.type, one.state, str(one.attempts), age_text(one.created_at), one.problem or "") for one in found]
    print_table(DELIVERY_COLUMNS, lines)


def _workspace_id(session: "Session", name: str) -> UUID:
    """Raises typer.Exit where there is no such workspace."""
    from sqlalchemy import select

    from app.access.tables import WorkspaceRow

    found = session.scalars(select(WorkspaceRow.id).where(WorkspaceRow.name == name)).one_or_none()
    if found is None:
        fail(f"there is no workspace `{name}`: `lathe workspaces list` shows them", ExitCode.REFUSED)
    return found
