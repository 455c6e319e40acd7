"""A job run again from its manifest gives the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.replay import differences, replayed_recipe, replayed_search
from tests.app.cli.conftest import LatheCommand


def test_a_manifest_gives_the_same_bytes_again(lathe: LatheCommand, files: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["optimize", files["model"], "--pass", "quantize_static", "--calibration", files["calibration"]]
    arguments += ["--evaluation", files["evaluation"], "--metric", "top1", "--labels", "label", "--threads", "1"]
    made = lathe(*arguments, "--budget", "60", "--watch", "--json")
    assert made.code == 0, made.stderr
    manifest = lathe("report", made.json["id"], "--json").json["manifest"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    again = lathe("replay", tmp_path / "manifest.json", "--model", files["model"], "--json")
    assert again.code == 0, again.stderr
    assert again.json["match"] is True
    assert again.json["differences"] == []
    assert again.json["job_id"] != made.json["id"]

    other = lathe("replay", tmp_path / "manifest.json", "--model", files["evaluation"])
    assert other.code == 2
    assert "is not the file of the manifest" in other.stderr


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
    assert replayed_search(manifest) == {"given": [given], "training": training, "reuse": False}
    assert replayed_search(_manifest()) is None


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
