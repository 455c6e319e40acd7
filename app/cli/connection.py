"""Which service the command line talks to, and with which key."""

import os
from typing import TYPE_CHECKING

import typer

from app.cli.local import owner_key

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

    from app.client import Lathe

RETRY_SECONDS = 5.0


def connect() -> "Lathe":
    """The service that LATHE_URL and LATHE_KEY name; by default the one that `lathe serve` runs on this machine.

    Raises NotConfigured where no key can be found.
    """
    import stamina.instrumentation

    from app.client import Lathe, NotConfigured

    stamina.instrumentation.set_on_retry_hooks([say_retry])
    url, key = url_and_key()
    if key is None:
        raise NotConfigured(f"No API key for {url}: set LATHE_KEY, or start a service here with `lathe serve`.")
    return Lathe(url, key, retry_seconds=RETRY_SECONDS)


def url_and_key() -> tuple[str, str | None]:
    """Of the service that is meant; no key where none is set, and this user is not the owner of one here."""
    from app.client import DEFAULT_URL
    from app.client.transport import is_local

    url = os.environ.get("LATHE_URL") or DEFAULT_URL
    # The owner's key never goes to a service elsewhere.
    return url, os.environ.get("LATHE_KEY") or (owner_key() if is_local(url) else None)


def say_retry(details: "RetryDetails") -> None:
    """On stderr, where a retry disturbs no script; the first one alone, for the rest say the same."""
    if details.retry_num == 1:
        typer.secho(f"lathe: {details.caused_by}; trying again", fg="yellow", err=True)
