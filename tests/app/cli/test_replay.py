"""A job run again from its manifest gives the same bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from app.cli.exits import ExitCode
from app.cli.replay import differences, given_models, renamed, replayed_recipe, replayed_search
from app.client.conversion import write_npz
from tests.app.cli.conftest import LatheCommand
from tests.app.client.answers import JOB, JOB_ID, MODEL
from tests.app.client.conftest import Server, server
from tests.worker import networks

__all__ = ["server"]  # the fixture


def test_a_manifest_gives_the_same_bytes_again(
    lathe: LatheCommand, job: dict[str, Any], files: dict[str, Path], tmp_path: Path
) -> None:
    manifest = lathe("report", job["id"], "--json").json["manifest"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    again = lathe("replay", tmp_path / "manifest.json", "--model", files["model"], "--json")
    assert again.code == 0, again.stderr
    assert again.json["match"] is True
    assert again.json["differences"] == []
    assert again.json["job_id"] != job["id"]

    other = lathe("replay", tmp_path / "manifest.json", "--model", files["evaluation"])
    assert other.code == 2
    assert "is not the file of the manifest" in other.stderr


@pytest.mark.long
def test_a_job_is_run_again_with_the_file_of_a_teacher_that_was_deleted(lathe: LatheCommand, tmp_path: Path) -> None:
    model, teacher = (networks.save(networks.perceptron(seed), tmp_path / str(seed)) for seed in range(2))
    teacher_id = lathe("upload", teacher).stdout.strip()
    (tmp_path / "recipe.json").write_text(json.dumps([{"pass": "distill", "teacher": teacher_id, "epochs": 1}]))
    write_npz(tmp_path / "rows.npz", {"x": networks.normal(64, 8)})
    arguments = ["--recipe", tmp_path / "recipe.json", "--training", tmp_path / "rows.npz", "--threads", "1", "--json"]
    done = lathe("optimize", model, *arguments, "--watch")
    assert done.code == 0, done.stderr
    report = lathe("report", done.json["id"], "--json")
    assert report.code == 0, report.stderr
    (tmp_path / "manifest.json").write_text(json.dumps(report.json["manifest"]))
    deleted = lathe("delete", teacher_id)
    assert deleted.code == 0, deleted.stderr

    without = lathe("replay", tmp_path / "manifest.json")
    assert without.code == ExitCode.REFUSED
    assert f"There is no teacher {teacher_id}" in without.stderr
    again = lathe("replay", tmp_path / "manifest.json", "--other", f"{teacher_id}={teacher}", "--json")
    assert again.code == 0, again.stderr
    assert again.json["match"] is True


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 99}'])
def test_what_is_no_manifest_is_refused(content: str, bare_lathe: LatheCommand, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    outcome = bare_lathe("replay", tmp_path / "manifest.json")
    assert outcome.code == 2
    assert "manifest" in outcome.stderr


def _manifest(**changes: Any) -> dict[str, Any]:
    return {
        "request": {"recipe": [{"pass": "optimize_graph"}, {"pass": "quantize_static"}]},
        "passes": [{"pass": "optimize_graph"}, {"pass": "quantize_static", "replay": {"pass": "x", "exclude": ["a"]}}],
        "versions": {"onnxruntime": "1", "onnx-ir": "1", "scipy": "1"},
        "source_sha256": "ab",
        "processor": {"name": "p", "instruction_sets": ["avx2"]},
        **changes,
    }


def test_choices_that_a_pass_made_take_the_place_of_its_arguments() -> None:
    assert replayed_recipe(_manifest()) == [{"pass": "optimize_graph"}, {"pass": "x", "exclude": ["a"]}]


@pytest.mark.parametrize(
    ("search", "training"),
    [({"training": True}, True), ({"training": False}, None), (None, None)],
    ids=["trained", "untrained", "unsaid"],
)
def test_what_a_search_found_is_made_anew(search: dict[str, Any] | None, training: bool | None) -> None:
    recipe = [{"pass": "optimize_graph"}, {"pass": "quantize_static"}]
    manifest = _manifest(request={"recipe": "auto", "search": search}, recipe=recipe)
    given = [{"pass": "optimize_graph"}, {"pass": "x", "exclude": ["a"]}]
    assert replayed_recipe(manifest) == given
    assert replayed_search(manifest, given) == {"given": [given], "training": training, "reuse": False}
    assert replayed_search(_manifest(), given) is None


def test_a_model_that_a_pass_names_may_be_given_as_a_file(tmp_path: Path) -> None:
    """It gets another id than it had."""
    (tmp_path / "teacher=1.onnx").write_bytes(b"teacher")
    known = {"7d3c": {"name": "t", "sha256": hashlib.sha256(b"teacher").hexdigest(), "size_bytes": 7}}
    files = given_models([f"7d3c={tmp_path / 'teacher=1.onnx'}"], _manifest(other_models=known))
    assert files == {"7d3c": tmp_path / "teacher=1.onnx"}
    recipe = [{"pass": "distill", "teacher": "7d3c", "student": None, "epochs": 2, "features": {"a": "7d3c"}}]
    assert renamed(recipe, {"7d3c": "new"}) == [recipe[0] | {"teacher": "new"}]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("model.onnx", "takes ID=FILE"),
        ("8e4d=model.onnx", "those of the manifest are: 7d3c"),
        ("7d3c=model.onnx", "is not the file of the manifest"),
    ],
    ids=["no-id", "unknown-id", "other-bytes"],
)
def test_a_file_that_is_no_model_of_the_manifest_is_refused(
    given: str, words: str, bare_lathe: LatheCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(b"another")
    unread: dict[str, Any] = {"artifact": {}, "datasets": {}, "model": {}, "metric": None, "version": 1}
    known = {"7d3c": {"name": "t", "sha256": "0" * 64, "size_bytes": 7}}
    Path("manifest.json").write_text(json.dumps(_manifest(other_models=known, **unread)))
    outcome = bare_lathe("replay", "manifest.json", "--other", given)
    assert outcome.code == ExitCode.USAGE
    assert words in outcome.stderr


def test_another_machine_and_other_libraries_are_named() -> None:
    other = _manifest(
        versions={"onnxruntime": "1", "onnx-ir": "2", "scipy": "2"},
        source_sha256="cd",
        processor={"name": "p", "instruction_sets": ["avx2", "avx512"]},
    )
    found = differences(_manifest(), other)
    assert found[:3] == [
        "onnx-ir: 1 then, 2 now",
        "scipy: 1 then, 2 now",
        "source of Lathe: sha256 ab then, cd now",
    ]
    assert len(found) == 4
    assert differences(_manifest(), _manifest()) == []


@pytest.fixture
def replay_that_fails(
    server: Server, bare_lathe: LatheCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> LatheCommand:
    """`lathe replay` of a manifest, with more arguments, at a service where the job runs out of time."""
    fault = {"code": "out_of_budget", "title": "Out of time", "detail": "1 s was up.", "remedy": "Give it more."}
    failed = JOB | {"state": "failed", "error": fault}

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: str) -> Response:
        return JSONResponse(MODEL)

    @server.app.post("/v1/jobs")
    def submit() -> Response:
        return JSONResponse(JOB, 202)

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: str) -> Response:
        return JSONResponse(failed)

    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: str) -> Response:
        return JSONResponse({"items": [], "next_after": 0})

    request = {"model_id": MODEL["id"], "recipe": [{"pass": "optimize_graph"}], "data": {}}
    unread: dict[str, Any] = {"artifact": {}, "datasets": {}, "model": {}, "metric": None}
    manifest = _manifest(version=1, request=request, passes=[{"pass": "optimize_graph"}], **unread)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("LATHE_URL", server.start())
    monkeypatch.setenv("LATHE_KEY", "lth_test")
    return lambda *arguments: bare_lathe("replay", tmp_path / "manifest.json", *arguments)


def test_a_replay_that_fails_says_why(replay_that_fails: LatheCommand) -> None:
    outcome = replay_that_fails("--json")
    assert outcome.code == ExitCode.FAILED
    assert "Out of time: 1 s was up. Give it more. (out_of_budget)" in outcome.stderr
    assert outcome.json["error"]["code"] == "out_of_budget"


def test_a_replay_that_is_interrupted_goes_on(replay_that_fails: LatheCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.client.Lathe.wait", interrupt)
    outcome = replay_that_fails()
    assert outcome.code == ExitCode.INTERRUPTED
    assert f"lathe watch {JOB_ID}" in outcome.stderr
