"""Lathe's search as its runner carries it out, in a process of its own."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import onnx

from app.config import RunnerSettings
from app.jobs.states import JobKind
from app.recipes.request import OptimizeRequest
from benchmarks.tasks import Task, arrays_in
from worker.runner.__main__ import run_job
from worker.runner.contract import InputFile, RunnerJob
from worker.runner.events import Events

NOBODY = str(UUID(int=0))
MEMORY_BYTES = 16 << 30


class SearchFailed(Exception):
    """The job ended without a model."""


def search(
    task: dict[str, Any], evaluation: str, body: dict[str, Any], *, train: bool, budget: float
) -> dict[str, Any]:
    """The winner's file at the task's target; what the report says of it. `evaluation`: a folder of arrays."""
    one, workdir = Task(**task), Path.cwd() / "job"
    workdir.mkdir()
    roles = {"calibration": one.calibration, "evaluation": evaluation} | ({"training": one.training} if train else {})
    model = workdir / "model.onnx"
    shutil.copyfile(one.model, model)
    datasets = {role: _dataset(Path(folder), workdir / f"{role}.npz") for role, folder in roles.items()}
    target = {"threads": one.threads, "batch": one.batch}
    request = {"model_id": NOBODY, "recipe": "auto", "data": dict.fromkeys(roles, NOBODY), "target": target, **body}
    first = onnx.load(model, load_external_data=False).graph.output[0].name
    request |= {"search": {"training": train}, "deployment_check": True, "metric": {"output": first, **body["metric"]}}
    usual = RunnerSettings()
    job = RunnerJob(
        kind=JobKind.OPTIMIZE,
        model=_input(model, "application/octet-stream"),
        datasets=datasets,
        request=OptimizeRequest.model_validate(request),
        threads=one.threads,
        timing_rounds=usual.timing_rounds,
        round_seconds=usual.round_seconds,
        budget_seconds=budget,
        memory_bytes=MEMORY_BYTES,
    )
    started = time.perf_counter()
    result = run_job(job, workdir, Events())
    seconds = time.perf_counter() - started
    report = result.report
    if report is None or report.search is None or result.verdict is None:
        raise SearchFailed(result.fault.detail if result.fault else "no report")
    shutil.copyfile(workdir / result.artifacts[0].path, one.target)
    winner = report.candidates[0]
    failed = (
        [check.name for check in report.deployment.checks if check.outcome == "failed"] if report.deployment else []
    )
    notes = [
        f"{result.verdict.outcome}: {winner.name} ({' + '.join(winner.recipe) or 'as it was'}); "
        f"{len(report.search.trials)} candidates",
        *report.search.explanation,
        *(f"{one.outcome}: {one.name}, {one.seconds:.1f} s" for one in report.search.trials),
        *(f"delivered: {one.name}: {one.verdict.reason}" for one in report.candidates if one.verdict),
        f"Deployment check: {', '.join(failed) + ' failed' if failed else 'nothing failed'}.",
    ]
    return {"seconds": seconds, "modified": bool(winner.recipe), "notes": notes}


def _dataset(folder: Path, path: Path) -> InputFile:
    np.savez(path, allow_pickle=False, **arrays_in(folder))
    return _input(path, "application/x-npz")


def _input(path: Path, media_type: str) -> InputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return InputFile(
        path=path.name, media_type=media_type, sha256=digest, size_bytes=path.stat().st_size, name=path.name
    )
