"""The front of a search as a picture: size against latency, the drop of the metric as colour.

Candidates are numbered, and their names stand below, where even long ones can be read. Same figures, same bytes.
"""

import io
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.runner.contract import OUTPUT_FOLDER, OutputFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STEM = "front"
MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
# No clock and no random ids in the files; names are plain text, whatever dollars are in them.
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "lathe",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
METADATA: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}}
WIDTH_INCHES, AXES_INCHES, LINE_INCHES, MARGIN_INCHES = 8.0, 4.2, 0.19, 0.75
NAME_COLUMNS = 100
DOTS_PER_INCH = 150
FADED = 0.35
# Ratios of the largest to the smallest from which an axis is logarithmic.
WIDE = 8.0


@dataclass(frozen=True)
class Point:
    """One file; `drop` is None where it is no number."""

    name: str
    latency_ms: float
    size_bytes: int
    drop: float | None
    holds: bool


@dataclass(frozen=True)
class Picture:
    """`front` begins with what is delivered; `tried` are the others."""

    metric: str
    allowed: float
    original: Point
    front: Sequence[Point]
    tried: Sequence[Point]


def write_plots(picture: Picture, workdir: Path) -> list[OutputFile]:
    """As PNG and SVG in the output folder. Raises whatever the library does; nothing is left half written then."""
    # Before the first import: there is no home of its own that the library could write to.
    os.environ.setdefault("MPLCONFIGDIR", str(workdir / "matplotlib"))
    import matplotlib as mpl  # noqa: PLC0415 - needed by searches alone, and takes half a second

    with mpl.rc_context(SETTINGS):
        figure = _figure(picture)
        content = {kind: _bytes(figure, kind) for kind in MEDIA_TYPES}
    written = []
    for kind, media_type in MEDIA_TYPES.items():
        path = workdir / OUTPUT_FOLDER / f"{STEM}.{kind}"
        path.write_bytes(content[kind])
        written.append(
            OutputFile(path=f"{OUTPUT_FOLDER}/{path.name}", kind="plot", file_name=path.name, media_type=media_type)
        )
    return written


def _bytes(figure: "Figure", kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=METADATA[kind])
    return buffer.getvalue()


def _figure(picture: Picture) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    lines = _legend(picture.front)
    below = LINE_INCHES * (len(lines) + 1)
    height = AXES_INCHES + 2 * MARGIN_INCHES + below
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.add_axes((0.1, (below + MARGIN_INCHES) / height, 0.74, AXES_INCHES / height))
    _draw(figure, axes, picture)
    figure.text(0.04, below / height, "\n".join(lines), va="top", linespacing=1.35)
    return figure


def _draw(figure: "Figure", axes: "Axes", picture: Picture) -> None:
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415 - as above
    from matplotlib.colors import Normalize  # noqa: PLC0415 - as above

    divisor, unit = (1 << 20, "MiB") if picture.original.size_bytes >= 1 << 20 else (1 << 10, "KiB")
    # Beyond twice what is allowed one colour: how bad does not matter there.
    colours = ScalarMappable(Normalize(0.0, max(2 * picture.allowed, 1e-6), clip=True), "viridis_r")

    def dots(label: str, points: Sequence[Point], **style: Any) -> None:
        if points:
            drops = [2 * picture.allowed if one.drop is None else one.drop for one in points]
            latencies, sizes = [one.latency_ms for one in points], [one.size_bytes / divisor for one in points]
            axes.scatter(latencies, sizes, label=label, **({"c": colours.to_rgba(np.array(drops))} | style))

    dots("tried", [one for one in picture.tried if one.holds], s=28, alpha=FADED)
    dots("tried, breaks the contract", [one for one in picture.tried if not one.holds], s=28, alpha=FADED, marker="x")
    front = [one for one in picture.front if one.name != picture.original.name]
    dots("the front", front, s=90, edgecolors="black", linewidths=0.8, zorder=5)
    dots("the original", [picture.original], s=60, marker="s", c="black", zorder=4)
    dots("delivered", [picture.front[0]], s=190, c="none", edgecolors="crimson", linewidths=1.8, zorder=6)
    for number, one in enumerate(picture.front, 1):
        axes.annotate(
            str(number), (one.latency_ms, one.size_bytes / divisor), (9, 7), textcoords="offset points", weight="bold"
        )
    every = [picture.original, *picture.front, *picture.tried]
    _scale(axes, [one.latency_ms for one in every], [one.size_bytes for one in every])
    axes.set_xlabel("latency of a call, ms (the original's in the last run, over the ratio by turns)")
    axes.set_ylabel(f"size, {unit}")
    axes.set_title("size against latency: below and to the left is better", loc="left")
    axes.grid(alpha=0.25)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.87, *_span(axes))))
    bar.set_label(f"drop of {picture.metric} ({picture.allowed:.3g} allowed)")
    axes.legend(loc="best", framealpha=0.8, fontsize=8)


def _span(axes: "Axes") -> tuple[float, float, float]:
    """Bottom, width and height of a bar beside the axes, as shares of the figure."""
    box = axes.get_position()
    return box.y0, 0.02, box.height


def _scale(axes: "Axes", latencies: Sequence[float], sizes: Sequence[float]) -> None:
    """Logarithmic where the files lie far apart, else from zero on."""
    axes.margins(0.12)
    if _is_wide(latencies):
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    if _is_wide(sizes):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)


def _is_wide(values: Sequence[float]) -> bool:
    return max(values) > WIDE * min(values) > 0


def _plain_numbers(axis: "Axis") -> None:
    """Powers of ten would be written as formulas."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter  # noqa: PLC0415 - as above

    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    axis.set_minor_formatter(StrMethodFormatter("{x:.3g}"))


def _legend(front: Sequence[Point]) -> list[str]:
    lines: list[str] = []
    for number, one in enumerate(front, 1):
        drop = "a drop that is no number" if one.drop is None else f"drop {one.drop:.3g}"
        text = f"{number}  {one.name}: {one.latency_ms:.3g} ms, {drop}{', delivered' if number == 1 else ''}"
        lines += textwrap.wrap(text, NAME_COLUMNS, subsequent_indent="    ")
    return lines
