"""What commands print: JSON on stdout for scripts, tables for people, everything else on stderr."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def stdout() -> "Console":
    from rich.console import Console

    return Console()


def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def printable(text: str) -> str:
    """The text on one line, with a space for each control character.

    What a service answers has names out of strangers' models and datasets in it, and those could clear a terminal, or
    forge lines on it.
    """
    return "".join(character if character.isprintable() else " " for character in text)


def words(text: str, style: str = "") -> "Text":
    """Such a text in a table or a report, where it is not taken for markup either."""
    from rich.text import Text

    return Text(printable(text), style=style)


def note(text: str) -> None:
    """A line for people; never on stdout."""
    typer.echo(printable(text), err=True)


def print_json(value: "BaseModel | Sequence[BaseModel | dict[str, Any]] | dict[str, Any]") -> None:
    """One JSON document on stdout."""
    import json

    from pydantic import BaseModel

    def plain(item: Any) -> Any:
        return item.model_dump(mode="json", by_alias=True) if isinstance(item, BaseModel) else item

    document = [plain(item) for item in value] if isinstance(value, list | tuple) else plain(value)
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def bytes_text(count: float) -> str:
    """`1234567` -> `1.18 MiB`."""
    for unit in UNITS[:-1]:
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} {UNITS[-1]}"
