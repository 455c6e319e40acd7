"""Lists as tables: a line a record, folded between words at most, readable from 80 columns on."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from app.cli.output import printable, stdout

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
NARROWEST = 8
# Largest first; a month and a year are those of the calendar on average.
UNITS = (("y", 31_557_600), ("mo", 2_629_800), ("d", 86_400), ("h", 3600), ("min", 60))


class Column(NamedTuple):
    """How one column is set. A `flexible` one may be folded where the line is too narrow; the others never are."""

    name: str
    right: bool = False
    flexible: bool = False


ID = Column("id")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], ids: Sequence[str] = ()) -> None:
    """A table on stdout. `ids`, one a row, are there to be copied: the last column, or below each row if too wide.

    Piped, it is as wide as it needs to be, so that every record stays on one line; COLUMNS says otherwise.
    """
    from rich.console import Console
    from rich.text import Text

    console, lines = stdout(), [tuple(map(printable, row)) for row in rows]
    room = console.width if console.is_terminal or os.environ.get("COLUMNS") else sys.maxsize
    if ids:
        columns_with_ids, lines_with_ids = [*columns, ID], [(*line, one) for line, one in zip(lines, ids, strict=True)]
        if _total(_widths(columns_with_ids, lines_with_ids)) <= room:
            columns, lines, ids = columns_with_ids, lines_with_ids, ()
    widths = _fitted(columns, _widths(columns, lines), room)
    if room == sys.maxsize:
        console = Console(width=_total(widths))
    console.print(_line(columns, widths, [column.name for column in columns], style="bold"))
    for number, line in enumerate(lines):
        console.print(_line(columns, widths, line))
        if ids:
            console.print(Text(f"{'':{GAP}}{ids[number]}", style="dim"))


def age_text(moment: datetime | None) -> str:
    """`3 h ago`, `in 30 d`, in the largest unit that it is one of; `--json` has the moment itself."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    name, size = next(((name, size) for name, size in UNITS if abs(seconds) >= size), ("s", 1))
    count = f"{abs(seconds) / size:.0f} {name}"
    if name == "s":
        return "now"
    return f"{count} ago" if seconds > 0 else f"in {count}"


def _widths(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    names = [column.name for column in columns]
    return [max(map(cell_len, cells)) for cells in zip(names, *lines, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _fitted(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """The widths, taken from the flexible columns that have most to give until the line fits into `room`."""
    floors = {number: max(NARROWEST, len(column.name)) for number, column in enumerate(columns) if column.flexible}
    while _total(widths) > room:
        widest = max(floors, key=lambda number: widths[number] - floors[number], default=None)
        if widest is None or widths[widest] <= floors[widest]:
            break
        widths[widest] -= 1
    return widths


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str], style: str = "") -> "Table":
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        line.add_column(width=width, justify="right" if column.right else "left", overflow="fold")
    line.add_row(*(Text(cell, style=style) for cell in cells))  # Text: what users named is not markup
    return line
