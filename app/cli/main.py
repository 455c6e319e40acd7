"""The commands, put together. What a command needs is imported when it runs, so that `lathe --help` is quick."""

import sys

import typer

from app.cli import audit, doctor, jobs, keys, replay, server, submission, uploads, webhooks, workspaces
from app.cli.exits import HELP, errors_as_exit_codes

app = typer.Typer(
    name="lathe",
    help="Make trained models smaller and faster, and prove what was done. LATHE_URL and LATHE_KEY name the service; "
    "by default it is the one that `lathe serve` runs here.",
    epilog=HELP,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold a key
    add_completion=False,
)
server.register(app)
doctor.register(app)
uploads.register(app)
submission.register(app)
jobs.register(app)
replay.register(app)
audit.register(app)
app.add_typer(keys.app, name="keys")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(webhooks.app, name="webhooks")


def main() -> None:
    """The console script."""
    try:
        with errors_as_exit_codes():
            app()
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
