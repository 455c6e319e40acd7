"""`lathe serve` and `lathe migrate`: for whoever runs the service."""

import os
from typing import Annotated

import typer

from app.cli.exits import ExitCode, fail
from app.cli.local import DataOption, database_settings
from app.cli.output import note
from app.extras import install_command


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(serve)
    app.command()(migrate)
    app.command()(mark_storage)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="LATHE_API_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks one.", envvar="LATHE_API_PORT")
    ] = 8000,
    data: DataOption = None,
) -> None:
    """Run the whole service on this machine until it is interrupted: Postgres, Redis, API, workers, housekeeping."""
    from pydantic import ValidationError

    from app.config import what_is_wrong

    try:
        from app.embedded import EmbeddedError, Stack, default_folder
    except ImportError as error:
        fail(f"`{error.name}` is not installed: {install_command('worker', 'embedded')}", ExitCode.USAGE)
    try:
        Stack(data or default_folder(), host=host, port=port, say=typer.echo).run_forever()
    except EmbeddedError as error:
        fail(str(error), ExitCode.FAILED)
    except ValidationError as error:
        fail("; ".join(what_is_wrong(error)), ExitCode.USAGE)


def migrate() -> None:
    """Bring the database that DATABASE_URL names to the newest schema."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.schema import migrate as run_migrations

    url = os.environ.get("DATABASE_URL")
    if not url:
        fail("DATABASE_URL is not set", ExitCode.USAGE)
    try:
        run_migrations(url)
    except (SQLAlchemyError, CommandError) as error:
        fail(f"the database cannot be migrated: {error}", ExitCode.FAILED)
    note("the schema is up to date")


def mark_storage(data: DataOption = None) -> None:
    """Make the storage that STORAGE_URL names that of the database that DATABASE_URL names, whatever it was before;
    with --data, the storage that the service there uses.

    Workers and housekeeping go to work on it then, and remove files there that the database does not know.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from app.blobs.mark import mark
    from app.database import Database
    from app.errors import LatheError
    from app.storage import Storage

    with database_settings(data) as settings:
        database = Database(settings)
        try:
            mark(database, Storage(settings))
        except (SQLAlchemyError, LatheError, OSError, ValueError) as error:
            fail(f"the storage cannot be marked: {error}", ExitCode.FAILED)
        finally:
            database.dispose()
    note(f"the storage {settings.storage_url} is this database's")
