"""Pieces as a runner keeps and finds them: one that is not what it was made to be is none."""

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs.report import Interval, Step
from app.recipes.graph import OptimizeGraph
from app.recipes.request import Metric
from tests.worker import networks
from tests.worker.engine.search.grounds import trial
from tests.worker.runner.search.conftest import Runner, stock
from worker.engine.model_file import ModelFile, save_model
from worker.engine.search.proposals import Trial
from worker.runner.chain import Outcome
from worker.runner.contract import PIECE_FOLDER

CONFIG = OptimizeGraph.model_validate({"pass": "optimize_graph"})
TOP1 = Metric(name="top1", output="y", labels="label")


@pytest.fixture
def made(tmp_path: Path, original: ModelFile) -> Outcome:
    """One step: a file of two, and one beside it."""
    model = save_model(networks.perceptron(width=16), tmp_path / "made")
    (tmp_path / "made" / "model.onnx.data").write_bytes(b"weights")
    extra = tmp_path / "model.ort"
    extra.write_bytes(b"ready to load")
    outcome = Outcome(original)
    step = Step.model_validate(
        {"pass": "optimize_graph", "parameters": {}, "modified": True, "seconds": 0.1, "notes": ["Fused."]}
    )
    outcome.go_on(model, step, {"pass": "optimize_graph", "replay": {"level": 1}}, {"ort": extra})
    return outcome


def timed(one: Trial, low: float | None = None) -> Trial:
    """As measured, and not on one scale with others."""
    return replace(one, latency=Interval(value=one.ratios.latency * 1.25, low=low))


def contents(outcome: Outcome) -> list[bytes]:
    return [path.read_bytes() for path in (*outcome.model.files(), *outcome.extras.values())]


def test_a_step_comes_back_whole(runner: Runner, original: ModelFile, made: Outcome, tmp_path: Path) -> None:
    runner.stock.keep_step(CONFIG, original, made)
    again = Outcome(original)
    assert runner.next().take_step(CONFIG, again, tmp_path / "scratch")
    assert contents(again) == contents(made)
    assert (again.steps, again.manifests) == (made.steps, made.manifests)
    assert again.files == [again.model]
    assert not again.made_here
    # What was brought is not kept beside what was unpacked of it.
    assert not any(path.exists() for path in runner.left().values())


def test_of_another_file_nothing_is_taken(runner: Runner, original: ModelFile, made: Outcome, tmp_path: Path) -> None:
    runner.stock.keep_step(CONFIG, original, made)
    other = Outcome(save_model(networks.perceptron(width=24), tmp_path / "other"))
    assert not runner.next().take_step(CONFIG, other, tmp_path / "scratch")
    assert other.steps == []


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_trial_comes_back_to_the_last_digit(runner: Runner, original: ModelFile, with_memory: bool) -> None:
    one = timed(trial("static", 1 / 3, 0.1 + 0.2, 1e-17, value=0.7), low=0.3)
    runner.stock.keep_trial(original, TOP1, one, with_memory=with_memory)
    later = runner.next()
    assert later.find_trial(original, TOP1, with_memory=not with_memory) is None
    found = later.find_trial(original, TOP1, with_memory=with_memory)
    assert found is not None
    assert (found.latency, found.ratios, found.drop, found.value) == (one.latency, one.ratios, 1e-17, 0.7)


@pytest.mark.parametrize("drop", [None, float("nan"), float("inf")])
def test_a_trial_without_all_of_its_figures_is_measured_again(runner: Runner, original: ModelFile, drop: Any) -> None:
    runner.stock.keep_trial(original, TOP1, trial("static", drop=0.0), with_memory=False)  # no interval
    broken = replace(timed(trial("static")), drop=drop)
    runner.stock.keep_trial(original, TOP1, broken, with_memory=False)
    assert runner.left() == {}


def test_what_is_too_large_is_not_kept(original: ModelFile, made: Outcome, tmp_path: Path) -> None:
    small = stock(tmp_path / "small", most_bytes=made.model.size_bytes())
    small.stock.keep_step(CONFIG, original, made)
    assert small.left() == {}


def test_a_full_disk_loses_a_piece_and_nothing_else(runner: Runner, original: ModelFile, made: Outcome) -> None:
    (runner.folder / PIECE_FOLDER).rmdir()  # as any other error of the file system
    runner.stock.keep_step(CONFIG, original, made)
    assert runner.left() == {}


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The piece with other content for its parts, or without some."""
    folder = path.with_name(f"{path.name}-parts")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
        names = archive.getnames()
    with tarfile.open(path, "w:") as archive:
        for name in names:
            content = change(name, (folder / name).read_bytes())
            if content is not None:
                (folder / name).write_bytes(content)
                archive.add(folder / name, name)


def linked(path: Path) -> None:
    """The facts are a link out of the folder."""
    with tarfile.open(path, "w:") as archive:
        link = tarfile.TarInfo("piece.json")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../secret.json"
        archive.addfile(link)


def part(name: str, content: bytes | None) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda each, before: content if each == name else before)


def replaced(before: bytes, after: bytes) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda _, content: content.replace(before, after))


SPOILT = [
    pytest.param(lambda path: path.write_bytes(b"no tar"), id="no-tar"),
    pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    pytest.param(lambda path: path.write_bytes(path.read_bytes()[:2000]), id="cut-off"),
    pytest.param(linked, id="link"),
    pytest.param(part("piece.json", None), id="no-facts"),
    pytest.param(part("piece.json", b"{}"), id="other-facts"),
    pytest.param(part("model/model.onnx", None), id="no-model"),
    pytest.param(part("model/model.onnx", b"no model"), id="no-model-in-it"),
    pytest.param(part("extras/model.ort", None), id="no-extra"),
    pytest.param(replaced(b'"model":"model.onnx"', b'"model":"../../x.onnx"'), id="model-elsewhere"),
    pytest.param(replaced(b'"ort":', b'"exe":'), id="extra-of-no-kind"),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_step_is_none(
    runner: Runner, original: ModelFile, made: Outcome, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    runner.stock.keep_step(CONFIG, original, made)
    [path] = runner.left().values()
    spoil(path)
    again = Outcome(original)
    assert not runner.next().take_step(CONFIG, again, tmp_path / "scratch")
    assert again == Outcome(original)
    # The pass that runs instead finds an empty folder.
    assert not (tmp_path / "scratch").exists() or list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b'"latency_ratio":2.5', b'"latency_ratio":NaN', id="not-a-number"),
        pytest.param(b'"scaled_latency_ratio":2.0', b'"scaled_latency_ratio":0.0', id="no-ratio"),
        pytest.param(b'"drop":0.0', b'"drop":Infinity', id="infinite"),
        pytest.param(b'"drop":0.0', b'"drop":null', id="nothing"),
        pytest.param(b'"latency_low":null', b'"latency_low":NaN', id="an-end-of-none"),
    ],
)
def test_a_forged_trial_is_none(runner: Runner, original: ModelFile, before: bytes, after: bytes) -> None:
    one = timed(trial("static", 2.0))
    runner.stock.keep_trial(original, TOP1, one, with_memory=False)
    [path] = runner.left().values()
    assert before in path.read_bytes()
    replaced(before, after)(path)
    assert runner.next().find_trial(original, TOP1, with_memory=False) is None
