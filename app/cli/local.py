"""The service on this machine: its data folder, its key, its database."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from app.cli.exits import ExitCode, fail

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.config import Settings

DataOption = Annotated[
    Path | None,
    typer.Option("--data", file_okay=False, help="Folder of an embedded service; by default the user's own."),
]
SOCKET_LINE = 4  # of postmaster.pid, counted from 0


def running_service(data: Path | None) -> tuple[str, str | None] | None:
    """Of the embedded service that runs on that folder, by default this user's: its URL, and the key that it wrote for
    its owner, if that is still there. None where none runs.
    """
    try:
        from app.embedded import default_folder, running_url
    except ImportError:  # without the extra `embedded` there is no such service here
        return None
    folder = data or default_folder()
    url, key = running_url(folder), folder / "key"
    return None if url is None else (url, key.read_text(encoding="ascii").strip() if key.is_file() else None)


@contextmanager
def database_settings(data: Path | None) -> "Iterator[Settings]":
    """Settings whose database answers while the block runs: DATABASE_URL's, or an embedded service's.

    An embedded service that does not run is started for as long as that takes; none is made. Raises typer.Exit where
    none can be had.
    """
    from pydantic import ValidationError

    from app.config import get_settings, what_is_wrong

    if data is None and os.environ.get("DATABASE_URL"):
        try:
            yield get_settings()
        except ValidationError as error:
            fail("; ".join(what_is_wrong(error)), ExitCode.USAGE)
        return
    from app.embedded import DataFolderInUse, EmbeddedError, EmbeddedServices

    folder = folder_of_a_service(data)
    services = EmbeddedServices(folder)
    try:
        services.start()
    except DataFolderInUse:
        yield running_settings(folder)
        return
    except EmbeddedError as error:
        fail(str(error), ExitCode.FAILED)
    try:
        settings = _settings(services.environment)
        from app.schema import migrate

        migrate(settings.database_url.get_secret_value())
        yield settings
    finally:
        services.stop()


@contextmanager
def database_session(data: Path | None) -> "Iterator[tuple[Session, Settings]]":
    """One transaction on that database, and the settings.

    Raises as `database_settings`, and typer.Exit where the database does not answer, or has not the newest schema.
    """
    from sqlalchemy.exc import DBAPIError, ProgrammingError

    from app.database import DATABASE_AWAY, Database

    try:
        with database_settings(data) as settings:
            database = Database(settings)
            try:
                with database.session_scope() as session:
                    yield session, settings
            finally:
                database.dispose()
    except DATABASE_AWAY as error:
        why = error.orig if isinstance(error, DBAPIError) else error
        fail(f"the database does not answer: {why}. Check DATABASE_URL, and that Postgres runs", ExitCode.UNREACHABLE)
    except ProgrammingError as error:
        fail(f"{error.orig}: `lathe migrate` brings the database to the newest schema", ExitCode.FAILED)


def folder_of_a_service(data: Path | None) -> Path:
    """The folder of the service that is meant. Raises typer.Exit where there is none: none is made for a key."""
    from app.embedded import default_folder, holds_service

    folder = data or default_folder()
    if not holds_service(folder):
        fail(
            f"there is no service in {folder}: name the folder of yours with --data or LATHE_DATA_FOLDER, "
            "or its database with DATABASE_URL; `lathe serve` makes one",
            ExitCode.USAGE,
        )
    return folder


def _settings(environment: dict[str, str]) -> "Settings":
    from pydantic import SecretStr

    from app.config import Settings

    return Settings(
        database_url=SecretStr(environment["DATABASE_URL"]),
        redis_url=SecretStr(environment["REDIS_URL"]),
        storage_url=environment["STORAGE_URL"],
        secret_key=SecretStr(environment["LATHE_SECRET_KEY"]),
        embedded=True,
    )


def running_settings(folder: Path) -> "Settings":
    """Those of an embedded service that another process runs."""
    from app.embedded.postgres import DATABASE, ROLE

    sockets = (folder / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[SOCKET_LINE]
    return _settings(
        {
            "DATABASE_URL": f"postgresql+psycopg://{ROLE}@/{DATABASE}?host={quote(sockets, safe='')}",
            "REDIS_URL": f"redis+socket://{sockets}/redis.sock",
            "STORAGE_URL": (folder / "storage").absolute().as_uri(),
            "LATHE_SECRET_KEY": (folder / "secret_key").read_text(encoding="ascii").strip(),
        }
    )
