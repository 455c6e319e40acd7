"""`lathe optimize --auto` on the whole service: watched, reported, and run again from its manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.cli.conftest import LatheCommand

# What makes the file smaller on any machine, however busy; one candidate of it is built.
ARGUMENTS = ["--auto", "--objective", "size=1", "--max-drop", "0.2", "--allow", "quantize_weights"]
ARGUMENTS += ["--max-trials", "1", "--no-deployment-check", "--threads", "1", "--budget", "60"]
ARGUMENTS += ["--instruction-set", "avx2"]


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    """The job that the first test of this file made; the others read it."""
    return {}


@pytest.fixture
def job(lathe: LatheCommand, files: dict[str, Path], finished: dict[str, Any]) -> dict[str, Any]:
    if not finished:
        judged = ["--evaluation", files["evaluation"], "--metric", "top1", "--labels", "label"]
        outcome = lathe("optimize", files["model"], *ARGUMENTS, *judged, "--watch", "--json")
        assert outcome.code in {0, 3}, outcome.stderr
        finished |= outcome.json
    return finished


def test_the_request_says_what_the_options_do(job: dict[str, Any]) -> None:
    request = job["request"]
    assert request["recipe"] == "auto"
    assert request["objective"] == {"latency": 0.0, "size": 1.0, "memory": 0.0}
    assert request["search"]["passes"] == ["quantize_weights"]
    assert (request["search"]["max_trials"], request["contract"]["max_drop"]) == (1, 0.2)
    assert request["deployment_check"] is False
    assert (request["target"]["threads"], request["target"]["instruction_set"]) == (1, "avx2")


def test_the_report_shows_the_front_why_it_won_and_what_was_tried(lathe: LatheCommand, job: dict[str, Any]) -> None:
    watched, reported = lathe("watch", job["id"]), lathe("report", job["id"])
    search = lathe("report", job["id"], "--json").json["search"]
    assert watched.stdout == reported.stdout
    parts = ["the front", "why this one", "what was tried", *search["front"]]
    parts += [trial["outcome"] for trial in search["trials"]]
    assert [part for part in parts if part not in reported.stdout] == []
    assert all(f"{trial['name']}: " in watched.stderr for trial in search["trials"])
    assert "auto" in lathe("jobs").stdout


@pytest.mark.long
def test_the_next_search_says_what_it_did_not_build_again(
    lathe: LatheCommand, job: dict[str, Any], files: dict[str, Path]
) -> None:
    judged = ["--evaluation", files["evaluation"], "--metric", "top1", "--labels", "label"]
    again = lathe("optimize", job["model_id"], *ARGUMENTS, *judged, "--watch", "--json").json
    trials = lathe("report", again["id"], "--json").json["search"]["trials"]
    assert {one["name"]: one["cached"] for one in trials} == {"weights in 8 bits": True}
    assert "cached" in lathe("report", again["id"]).stdout
    assert "cached" not in lathe("report", job["id"]).stdout


@pytest.mark.long
def test_a_search_builds_all_anew_where_it_is_told_to(
    lathe: LatheCommand, job: dict[str, Any], files: dict[str, Path]
) -> None:
    judged = ["--evaluation", files["evaluation"], "--metric", "top1", "--labels", "label"]
    again = lathe("optimize", job["model_id"], *ARGUMENTS, *judged, "--no-reuse", "--watch", "--json").json
    trials = lathe("report", again["id"], "--json").json["search"]["trials"]
    assert {one["cached"] for one in trials} == {False}


@pytest.mark.long
def test_its_manifest_gives_the_same_bytes_again(lathe: LatheCommand, job: dict[str, Any], tmp_path: Path) -> None:
    downloaded = lathe("download", job["id"], tmp_path, "--kind", "manifest", "--json")
    again = lathe("replay", downloaded.json["path"], "--json")
    assert again.code == 0, again.stderr
    assert again.json["match"] is True
    (winner,) = (one for one in job["artifacts"] if one["sha256"] == again.json["sha256"]["replay"])
    assert winner == job["artifacts"][0]
    trials = lathe("report", again.json["job_id"], "--json").json["search"]["trials"]
    assert [one["cached"] for one in trials] == [False]


@pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param("front.png", b"\x89PNG", id="png"), pytest.param("front.svg", b"<?xml", id="svg")],
)
def test_the_front_is_downloaded_as_a_picture(
    lathe: LatheCommand, job: dict[str, Any], tmp_path: Path, name: str, head: bytes
) -> None:
    kinds = [artifact["kind"] for artifact in job["artifacts"]]
    assert kinds.count("plot") == 2
    assert kinds[0] == "model"
    outcome = lathe("download", job["id"], tmp_path / name, "--kind", "plot")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / name).read_bytes().startswith(head)


def test_a_search_that_delivered_the_original_has_nothing_to_run_again(
    lathe: LatheCommand, job: dict[str, Any], tmp_path: Path
) -> None:
    manifest = lathe("report", job["id"], "--json").json["manifest"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"recipe": [], "passes": []}))
    outcome = lathe("replay", tmp_path / "manifest.json")
    assert outcome.code == 2
    assert "the original" in outcome.stderr
