"""The front as a picture: readable files, the same bytes each time, whatever the candidates are called."""

import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from worker.runner.search.plotting import Picture, Point, write_plots

ORIGINAL = Point("original", 2.0, 4 << 20, 0.0, holds=True)
LONG = "static int8, channels cut to 0.5, taught for 10 epochs " * 4
FRONT = [Point("static int8", 0.8, 1 << 20, 0.002, holds=True), Point(LONG, 0.5, 1 << 19, 0.02, holds=True)]
TRIED = [Point("a broken one", 0.4, 1 << 18, 0.4, holds=False), Point("no number", 1.9, 4 << 20, None, holds=False)]
PICTURE = Picture("top1", 0.01, ORIGINAL, FRONT, TRIED)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def drawn(workdir: Path, picture: Picture) -> dict[str, bytes]:
    (workdir / "outputs").mkdir(parents=True)
    written = write_plots(picture, workdir)
    assert [one.kind for one in written] == ["plot", "plot"]
    return {one.media_type: (workdir / one.path).read_bytes() for one in written}


def test_both_files_are_what_they_say_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (drawn(tmp_path / name, PICTURE) for name in ("first", "second"))
    assert first == second
    assert first["image/png"].startswith(PNG_MAGIC)
    assert ElementTree.fromstring(first["image/svg+xml"]).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - ours


def test_what_was_not_accepted_looks_like_no_part_of_the_front(tmp_path: Path) -> None:
    refused = replace(PICTURE, front=[FRONT[0], replace(FRONT[1], name="bold", holds=False)])
    pictures = {"accepted": PICTURE, "refused": refused}
    words = [drawn(tmp_path / name, one)["image/svg+xml"].decode() for name, one in pictures.items()]
    assert ["bold: 0.5 ms, drop 0.02, not accepted" in one for one in words] == [False, True]
    assert ["measured last, not accepted" in one for one in words] == [False, True]


def test_memory_is_told_where_it_counts(tmp_path: Path) -> None:
    front = [replace(FRONT[0], memory_ratio=1.5), FRONT[1]]
    svg = drawn(tmp_path, replace(PICTURE, front=front))["image/svg+xml"].decode()
    assert "static int8: 0.8 ms, 1.5 times as little memory, drop 0.002" in svg
    assert svg.count("memory") == 1


@pytest.mark.parametrize("apart", [0.0, 0.01])
def test_numbers_of_points_that_lie_close_can_all_be_read(apart: float, tmp_path: Path) -> None:
    front = [replace(FRONT[0], name=f"{n}", latency_ms=0.8 + n * apart) for n in range(7)]
    svg = drawn(tmp_path, replace(PICTURE, front=front))["image/svg+xml"].decode()
    found = re.findall(r"<!-- ([1-7]) -->\s*<g transform=\"translate\(([\d.]+) ([\d.]+)\)", svg)
    places = {number: (float(x), float(y)) for number, x, y in found}
    assert len(places) == 7
    # A digit of 9 points is about 7 high and 6 wide.
    assert min(math.dist(*pair) for pair in combinations(places.values(), 2)) > 8


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(replace(PICTURE, front=[ORIGINAL], tried=[]), id="the original alone"),
        pytest.param(replace(PICTURE, allowed=0.0), id="nothing allowed"),
        pytest.param(replace(PICTURE, front=[replace(FRONT[0], name="$\\frac{$ <b>&</b>")]), id="signs in a name"),
        pytest.param(replace(PICTURE, front=[replace(FRONT[0], latency_ms=0.01, size_bytes=2048)]), id="orders apart"),
    ],
)
def test_what_is_unusual_is_drawn_as_well(picture: Picture, tmp_path: Path) -> None:
    assert len(drawn(tmp_path, picture)) == 2
