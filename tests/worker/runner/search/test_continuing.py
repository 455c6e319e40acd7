"""A search that goes on from what an earlier one finished."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.jobs.report import Report, TrialReport
from tests.worker import networks
from tests.worker.runner.optimizing import PieceEvents, optimize
from worker.runner.contract import PIECE_FOLDER

BUDGET = 60.0
PASSES = ["optimize_graph", "quantize_weights", "convert_float16"]
DATA = {"evaluation": {"x": networks.normal(200, 8)}}


@dataclass
class Searched:
    """A search that is over: what it reports, and what it left, by key."""

    report: Report
    pieces: dict[str, Path]

    @property
    def trials(self) -> list[TrialReport]:
        assert self.report.search is not None
        return self.report.search.trials

    def files(self) -> dict[str, str]:
        return {one.name: one.sha256 for one in self.report.candidates}


def brought(piece: Path, to: Path) -> str:
    """A copy, as a runner is given one: it is the runner's own."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(piece, to)
    return str(to.resolve())


def search(workdir: Path, pieces: dict[str, Path] | None = None, most: int = 8, **body: Any) -> Searched:
    """By size: what is smaller is so on a busy machine as well."""
    told = PieceEvents()
    given = {key: brought(path, workdir / "inputs" / key) for key, path in (pieces or {}).items()}
    body = {
        "objective": "size",
        "contract": {"max_drop": 0.5},
        "search": {"passes": PASSES, "max_trials": most},
    } | body
    result = optimize(
        workdir, networks.perceptron(width=256), DATA, BUDGET, pieces=given, events=told, recipe="auto", **body
    )
    assert result.outcome == "succeeded", result.fault
    assert result.report is not None
    return Searched(result.report, {one.key: workdir / PIECE_FOLDER / one.file for one in told.pieces})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """One that ended early."""
    return search(tmp_path_factory.mktemp("first"), most=2)


def test_the_next_one_builds_and_measures_only_what_is_new(first: Searched, tmp_path: Path) -> None:
    second = search(tmp_path, first.pieces)
    assert not any(one.cached for one in first.trials)
    before = {one.name: one for one in first.trials if one.outcome != "failed"}
    assert before
    again = {one.name: one for one in second.trials if one.cached}
    assert again.keys() == before.keys()
    assert len(second.trials) > len(first.trials)
    for name, one in again.items():
        told = (one.latency_ratio, one.size_ratio, one.metric, one.drop, one.seconds)
        then = before[name]
        assert told == (then.latency_ratio, then.size_ratio, then.metric, then.drop, then.seconds)
    # Nothing is left twice, and the same files are delivered.
    assert not first.pieces.keys() & second.pieces.keys()
    shared = first.files().keys() & second.files().keys()
    assert all(first.files()[name] == second.files()[name] for name in shared)
    assert second.report.search is not None
    assert f"({len(again)} of them by an earlier search)" in second.report.search.ended


def test_what_is_delivered_is_measured_anew(first: Searched, tmp_path: Path) -> None:
    second = search(tmp_path, first.pieces, most=2)
    assert all(one.cached for one in second.trials)
    then, now = first.report.candidates, second.report.candidates
    # Beside the winner, which is the smallest, are those that are faster: that may be measured otherwise each time.
    assert (then[0].name, then[0].sha256) == (now[0].name, now[0].sha256)
    assert then[0].measurement.latency.round_medians_ms != now[0].measurement.latency.round_medians_ms


@pytest.mark.long
def test_pieces_that_are_none_are_made_anew(first: Searched, tmp_path: Path) -> None:
    spoilt = {key: tmp_path / f"piece-{number}" for number, key in enumerate(first.pieces)}
    for path in spoilt.values():
        path.write_bytes(b"no tar")
    second = search(tmp_path / "job", spoilt, most=1)
    one = second.trials[0]
    then = next(before for before in first.trials if before.name == one.name)
    assert (one.cached, one.outcome, one.size_ratio) == (False, then.outcome, then.size_ratio)
    # And left anew, to take the place of the spoilt ones.
    assert second.pieces
    assert second.pieces.keys() <= first.pieces.keys()
