"""What an exit code of `lathe` means."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import typer

from app.cli.output import printable

if TYPE_CHECKING:
    from app.client import Job, LatheClientError


class ExitCode(IntEnum):
    """Stable: scripts rely on it."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNMET = 3
    REFUSED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


HELP = (
    "Exit codes: 0 done; 1 the job failed or the fault is ours; 2 wrong usage; 3 the contract is unmet or "
    "undecidable, or a replay gave other bytes; 4 the service refused; 5 the service does not answer; 130 interrupted."
)
GATEWAY_STATUSES = frozenset({502, 503, 504})
FIRST_SERVER_STATUS = 500


def code_of_error(error: "LatheClientError") -> ExitCode:
    """Whose fault an error of the client is."""
    from app.client import LatheApiError, NotConfigured, ServiceUnreachable
    from app.client.errors import UNEXPECTED_ANSWER
    from app.errors import StorageQuotaExceeded

    if isinstance(error, LatheApiError):
        if error.status in GATEWAY_STATUSES or error.code == UNEXPECTED_ANSWER:
            return ExitCode.UNREACHABLE
        refused = error.status < FIRST_SERVER_STATUS or error.code == StorageQuotaExceeded.code
        return ExitCode.REFUSED if refused else ExitCode.FAILED
    if isinstance(error, ServiceUnreachable):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, NotConfigured) else ExitCode.FAILED


def code_of_job(job: "Job") -> ExitCode:
    """How a job that is over went."""
    if not job.succeeded:
        return ExitCode.FAILED
    kept = job.verdict is None or job.verdict.outcome in {"met", "no_contract"}
    return ExitCode.DONE if kept else ExitCode.UNMET


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn the client's errors, and files that cannot be read, into one line on stderr and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except OSError as error:
        if error.filename is None:
            fail(str(error), ExitCode.FAILED)
        fail(f"{error.filename}: {error.strerror}", ExitCode.USAGE)
    except Exception as error:
        if "app.client" not in sys.modules:
            raise
        from app.client import LatheClientError

        if not isinstance(error, LatheClientError):
            raise
        fail(str(error), code_of_error(error))


def fail(message: str, code: ExitCode) -> NoReturn:
    """Say why on stderr, and leave. Raises typer.Exit."""
    typer.secho(f"lathe: {printable(message)}", fg="red", err=True)
    raise typer.Exit(code)
