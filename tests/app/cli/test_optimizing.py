"""From a file to a smaller one, with the command alone, on the whole service."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.app.cli.conftest import PASS, LatheCommand, Outcome


def artifact_of(job: dict[str, Any]) -> dict[str, Any]:
    return next(artifact for artifact in job["artifacts"] if artifact["kind"] == "model")


def test_a_watched_job_ends_as_json_with_its_verdict(job: dict[str, Any]) -> None:
    assert job["state"] == "succeeded"
    assert job["verdict"]["outcome"] == "met"
    assert job["request"]["recipe"][0]["pass"] == PASS
    assert job["request"]["target"]["threads"] == 1
    assert job["downloaded_sha256"] == artifact_of(job)["sha256"]


def test_uploads_print_ids_alone_on_stdout(lathe: LatheCommand, files: dict[str, Path]) -> None:
    model, again = lathe("upload", files["model"]), lathe("upload", files["model"], "--json")
    assert model.stdout.strip() == again.json["id"]
    assert again.json["inputs"][0]["name"] == "image"
    dataset = lathe("dataset", files["evaluation"], "--json")
    assert dataset.json["sample_count"] == 600
    assert again.json["id"] in {row["id"] for row in lathe("models", "--json").json}
    assert dataset.json["id"] in {row["id"] for row in lathe("datasets", "--json").json}
    assert "digits.onnx" in lathe("models").stdout
    assert "image, label" in lathe("datasets").stdout


def test_what_was_uploaded_is_deleted(lathe: LatheCommand, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", features=np.zeros((3, 2), np.float32))
    uploaded = lathe("dataset", tmp_path / "few.npz", "--json").json["id"]
    assert lathe("delete", uploaded, "--json").json == {"id": uploaded, "kind": "dataset", "deleted": True}
    again = lathe("delete", uploaded, "--json")
    assert (again.code, again.stdout) == (4, "")


def test_the_report_lays_the_original_beside_the_optimized(lathe: LatheCommand, job: dict[str, Any]) -> None:
    shown = lathe("report", job["id"])
    rows = ["size", "compressed size", "latency p50", "latency p90", "latency p99", "throughput", "peak memory"]
    rows += ["load time", "top1", "time in int8", "verdict: met", "original ran", "optimized ran"]
    assert [row for row in rows if row not in shown.stdout] == []
    assert shown.code == 0
    report = lathe("report", job["id"], "--json").json
    assert report["candidates"][0]["sha256"] == artifact_of(job)["sha256"]


def test_a_finished_job_can_be_watched_again(lathe: LatheCommand, job: dict[str, Any]) -> None:
    outcome = lathe("watch", job["id"])
    assert outcome.code == 0
    assert "verdict: met" in outcome.stdout
    assert outcome.stderr.index(f"{PASS}: ") < outcome.stderr.index("succeeded")  # its log, then its end


def test_jobs_are_listed_by_state(lathe: LatheCommand, job: dict[str, Any]) -> None:
    assert job["id"] in {row["id"] for row in lathe("jobs", "--state", "succeeded", "--json").json}
    assert job["id"] not in {row["id"] for row in lathe("jobs", "--state", "queued", "--json").json}
    assert PASS in lathe("jobs").stdout


@pytest.mark.parametrize("by", ["job", "artifact"])
def test_a_download_by_job_or_by_artifact(lathe: LatheCommand, job: dict[str, Any], tmp_path: Path, by: str) -> None:
    source = job["id"] if by == "job" else artifact_of(job)["id"]
    outcome = lathe("download", source, tmp_path, "--json")
    saved = Path(outcome.json["path"])
    assert saved == tmp_path / artifact_of(job)["file_name"]
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == outcome.json["sha256"] == artifact_of(job)["sha256"]


@pytest.mark.parametrize("name", ["candidate", "file", "id"])
def test_a_model_is_promoted_by_any_of_its_names_and_downloaded_then(
    lathe: LatheCommand, job: dict[str, Any], tmp_path: Path, name: str
) -> None:
    candidate = lathe("report", job["id"], "--json").json["candidates"][0]["name"]
    names = {"candidate": candidate, "file": artifact_of(job)["file_name"], "id": artifact_of(job)["id"]}
    promoted = lathe("promote", job["id"], names[name], "--json")
    assert (promoted.code, promoted.json["promoted_artifact_id"]) == (0, artifact_of(job)["id"])
    saved = Path(lathe("download", job["id"], tmp_path, "--json").json["path"])
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == artifact_of(job)["sha256"]


def test_what_a_job_delivered_is_deleted_unless_it_was_promoted(lathe: LatheCommand, job: dict[str, Any]) -> None:
    assert lathe("promote", job["id"], artifact_of(job)["id"]).code == 0
    refused = lathe("delete", artifact_of(job)["id"])
    assert (refused.code, "(artifact_promoted)" in refused.stderr) == (4, True)
    [manifest] = [artifact["id"] for artifact in job["artifacts"] if artifact["kind"] == "manifest"]
    assert lathe("delete", manifest, "--json").json == {"id": manifest, "kind": "artifact", "deleted": True}
    again = lathe("delete", manifest, "--json")
    assert (again.code, again.stdout) == (4, "")


def test_a_candidate_that_is_not_there_is_named_beside_those_that_are(lathe: LatheCommand, job: dict[str, Any]) -> None:
    outcome = lathe("promote", job["id"], "no-such-candidate")
    assert outcome.code == 1
    assert "no-such-candidate" in outcome.stderr
    assert artifact_of(job)["file_name"] in outcome.stderr


@pytest.mark.long
def test_what_a_compiled_job_delivers_beside_its_model_is_downloaded_by_kind(
    lathe: LatheCommand, files: dict[str, Path], tmp_path: Path
) -> None:
    made = lathe(
        "optimize", files["model"], "--pass", "compile", "--threads", "1", "--budget", "60", "--watch", "--json"
    )
    assert made.code == 0, made.stderr
    assert sorted(artifact["kind"] for artifact in made.json["artifacts"]) == ["manifest", "model", "ort"]
    outcome = lathe("download", made.json["id"], tmp_path, "--kind", "ort", "--json")
    saved = Path(outcome.json["path"])
    assert saved.suffix == ".ort"
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == outcome.json["sha256"]


def test_a_finished_job_is_not_cancelled(lathe: LatheCommand, job: dict[str, Any]) -> None:
    outcome = lathe("cancel", job["id"])
    assert outcome.code == 4
    assert "(job_over)" in outcome.stderr


def test_a_recipe_file_sets_parameters_and_a_cancelled_job_is_no_success(
    lathe: LatheCommand, files: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps([{"pass": "quantize_dynamic", "per_channel": False}]))
    # The one worker is busy with the first, so the second is still queued when it is cancelled.
    first, second = (
        lathe("optimize", files["model"], "--recipe", recipe, *options, "--json").json
        for options in (
            ("--priority", "high", "--shape", "image=1x1x8x8"),
            ("--priority", "low", "--deployment-check"),
        )
    )
    assert second["request"]["recipe"][0]["per_channel"] is False
    assert [job["request"]["deployment_check"] for job in (first, second)] == [None, True]
    assert [job["request"]["target"]["shapes"] for job in (first, second)] == [{"image": [1, 1, 8, 8]}, None]
    assert lathe("cancel", second["id"], "--json").json["state"] == "cancelled"
    watched = lathe("watch", second["id"], "--json")
    assert watched.json["state"] == "cancelled"
    assert watched.code == 1
    assert lathe("cancel", first["id"]).code == 0


def test_a_recipe_that_cannot_be_is_refused_by_its_field(lathe: LatheCommand, files: dict[str, Path]) -> None:
    outcome: Outcome = lathe("optimize", files["model"], "--pass", "make_it_good")
    assert outcome.code == 4
    assert "recipe" in outcome.stderr
    assert "make_it_good" in outcome.stderr
    assert outcome.stderr.count("body.recipe") == 1, outcome.stderr


def test_arrays_that_no_input_bears_are_named_with_the_remedy(
    lathe: LatheCommand, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "misnamed.npz"
    np.savez(path, picture=np.zeros((3, 1, 8, 8), np.float32))
    outcome = lathe("optimize", files["model"], "--pass", "optimize_graph", "--evaluation", path)
    assert outcome.code == 4
    said = [line for line in outcome.stderr.splitlines() if line.startswith("lathe: ")]
    assert len(said) == 1
    for part in ("`image`", "picture", "Name each array as the model's input.", "(data_mismatch)"):
        assert part in said[0]


def test_passes_say_what_they_need(lathe: LatheCommand) -> None:
    needs = {item["name"]: item["needs"] for item in lathe("passes", "--json").json}
    assert needs["quantize_static"]["calibration_data"]
    assert not needs["quantize_dynamic"]["calibration_data"]
    assert "quantize_static" in lathe("passes").stdout
