"""Which service the command line talks to, and with which key."""

import logging
import os
from typing import TYPE_CHECKING

import typer

from app.cli.local import running_service
from app.cli.output import printable

if TYPE_CHECKING:
    from pathlib import Path

    from app.client import Lathe

RETRY_SECONDS = 5.0


def connect() -> "Lathe":
    """The service that LATHE_URL and LATHE_KEY name; by default the one that `lathe serve` runs on this machine.

    Raises NotConfigured where no key can be found.
    """
    from app.client import Lathe, NotConfigured

    say_retries()
    url, key = url_and_key()
    if key is None:
        raise NotConfigured(
            f"No API key for {url}: set LATHE_KEY, or leave LATHE_URL unset while `lathe serve` runs here."
        )
    return Lathe(url, key, retry_seconds=RETRY_SECONDS)


def url_and_key(data: "Path | None" = None) -> tuple[str, str | None]:
    """Of the service that is meant, on that data folder or the user's own; no key where none is set, and this user is
    not the owner of one that runs here.
    """
    from app.client import DEFAULT_URL

    url, key = os.environ.get("LATHE_URL"), os.environ.get("LATHE_KEY")
    if url and key:
        return url, key
    running_url, owner_key = running_service(data) or (DEFAULT_URL, None)
    url = url or running_url
    # The owner's key may do everything: it goes to that service, and to nobody else who listens on this machine.
    return url, key or (owner_key if url.rstrip("/") == running_url else None)


def say_retries() -> None:
    """Have the client's retries said on stderr, where they disturb no script."""
    logging.getLogger("lathe").handlers = [_Said()]


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        typer.secho(f"lathe: {printable(record.getMessage())}", fg="yellow", err=True)
