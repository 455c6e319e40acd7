"""The front of a search as a picture: size against latency, the drop of the metric as colour.

Candidates are numbered, and their names stand below, where even long ones can be read. Those of the last measurement
that were not accepted are told apart from the front. Same figures, same bytes.
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
POINTS_PER_INCH = 72
# Around a point, the nearest first and to its upper right: where its number may stand, in points.
NUMBER_OFFSETS = [
    radius * np.array([np.cos(angle), np.sin(angle)])
    for radius in (14, 24, 36)
    for angle in np.deg2rad([40, -40, 140, -140, 90, -90, 0, 180])
]
NEAREST = 8
"""Of them, those that need no line between point and number."""
LINE = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 5, "shrinkB": 4}
CLEAR_POINTS = 11
# Ratios of the largest to the smallest from which an axis is logarithmic.
WIDE = 8.0


@dataclass(frozen=True)
class Point:
    """One file; `drop` is None where it is no number, `memory_ratio` (the original's over its own) where it does not
    count.
    """

    name: str
    latency_ms: float
    size_bytes: int
    drop: float | None
    holds: bool
    memory_ratio: float | None = None


@dataclass(frozen=True)
class Picture:
    """`front` begins with what is delivered; `tried` are the others."""

    metric: str
    allowed: float
    original: Point
    front: Sequence[Point]
    tried: Sequence[Point]

    def is_accepted(self, one: Point) -> bool:
        """Whether it kept the contract in the last measurement, or is what was delivered all the same."""
        return one.holds or one is self.front[0]


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

    lines = _legend(picture)
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
    edged: dict[str, Any] = {"s": 90, "edgecolors": "black", "linewidths": 0.8, "zorder": 5}
    dots("the front", [one for one in front if picture.is_accepted(one)], **edged)
    dots("measured last, not accepted", [one for one in front if not picture.is_accepted(one)], marker="X", **edged)
    dots("the original", [picture.original], s=60, marker="s", c="black", zorder=4)
    dots("delivered", [picture.front[0]], s=190, c="none", edgecolors="crimson", linewidths=1.8, zorder=6)
    every = [picture.original, *picture.front, *picture.tried]
    _scale(axes, [one.latency_ms for one in every], [one.size_bytes for one in every])
    _number(axes, [(one.latency_ms, one.size_bytes / divisor) for one in picture.front])
    axes.set_xlabel("latency of a call, ms (the original's in the last run, over the ratio by turns)")
    axes.set_ylabel(f"size, {unit}")
    axes.set_title("size against latency: below and to the left is better", loc="left")
    axes.grid(alpha=0.25)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.87, *_span(axes))))
    bar.set_label(f"drop of {picture.metric} ({picture.allowed:.3g} allowed)")
    axes.legend(loc="best", framealpha=0.8, fontsize=8)


def _number(axes: "Axes", places: Sequence[tuple[float, float]]) -> None:
    """Each point's number beside it, where it covers no other number and no other point; else further off."""
    axes.get_xlim(), axes.get_ylim()  # scaled by now: places in inches do not change any more
    points = axes.transData.transform(np.array(places)) * POINTS_PER_INCH / axes.figure.dpi
    taken: list[np.ndarray] = []
    for number, (place, point) in enumerate(zip(places, points, strict=True), 1):
        beside = [point + offset for offset in NUMBER_OFFSETS]
        clear = [min((_distance(at, other) for other in (*taken, *points)), default=np.inf) for at in beside]
        free = [place for place, distance in enumerate(clear) if distance >= CLEAR_POINTS]
        chosen = free[0] if free else int(np.argmax(clear))
        taken.append(beside[chosen])
        axes.annotate(
            str(number),
            place,
            tuple(NUMBER_OFFSETS[chosen]),
            textcoords="offset points",
            weight="bold",
            ha="center",
            va="center",
            arrowprops=LINE if chosen >= NEAREST else None,
        )


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.hypot(*(one - other)))


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


def _legend(picture: Picture) -> list[str]:
    lines: list[str] = []
    for number, one in enumerate(picture.front, 1):
        drop = "a drop that is no number" if one.drop is None else f"drop {one.drop:.3g}"
        state = ", delivered" if number == 1 else "" if picture.is_accepted(one) else ", not accepted"
        memory = "" if one.memory_ratio is None else f"{one.memory_ratio:.3g} times as little memory, "
        text = f"{number}  {one.name}: {one.latency_ms:.3g} ms, {memory}{drop}{state}"
        lines += textwrap.wrap(text, NAME_COLUMNS, subsequent_indent="    ")
    return lines
