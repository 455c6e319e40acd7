"""`lathe audit`."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.connection import connect
from app.cli.output import JsonOption, print_json
from app.cli.tables import Column, age_text, print_table
from app.cli.uploads import LimitOption

if TYPE_CHECKING:
    from app.client import AuditEntry

COLUMNS = (
    Column("when"),
    Column("what"),
    Column("by key"),
    Column("details", flexible=True),
    Column("to"),
)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(audit)


def audit(
    action: Annotated[str | None, typer.Option(help="Only this: job.submitted, model.deleted, key.revoked.")] = None,
    object_id: Annotated[
        UUID | None, typer.Option("--object", help="Only what was done to this model, dataset, job or key.")
    ] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Show who did what in the workspace, the latest first. It takes a key with the scope `admin`."""
    with connect() as lathe:
        found = list(islice(lathe.audit(action=action, object_id=object_id), limit))
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, map(_row, found))


def _row(entry: "AuditEntry") -> tuple[str, ...]:
    by = "on the host" if entry.key_id is None else entry.key_prefix or ""
    details = ", ".join(f"{name} {value}" for name, value in entry.details.items() if value is not None)
    return age_text(entry.created_at), entry.action, by, details, str(entry.object_id)
