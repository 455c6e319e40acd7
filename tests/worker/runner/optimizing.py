"""Optimization jobs as the supervisor prepares them, run in this process."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from app.datasets.inspection import ArraySpec
from app.jobs.metric_choice import choose_metric
from app.jobs.search_fitness import judging_arrays
from app.jobs.states import JobKind
from app.models.inspection import ModelInspection
from app.recipes.request import OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from worker.engine.inspection import session, specs
from worker.runner.contract import PIECE_FOLDER, InputFile, Piece, RunnerJob, RunnerResult
from worker.runner.events import Events
from worker.runner.optimize import run
from worker.runner.search.run import run as search

# Long enough for every probe, short enough that timing takes two seconds.
BUDGET_SECONDS = 15.0


class PieceEvents(Events):
    """Remembers what a runner says of pieces that later searches can go on from."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Piece] = []

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece)


def input_file(path: Path, name: str, media_type: str) -> InputFile:
    content = path.read_bytes()
    return InputFile(
        path=path.name,
        media_type=media_type,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        name=name,
    )


def optimize(
    workdir: Path,
    model: onnx.ModelProto,
    data: dict[str, dict[str, np.ndarray]],
    *arguments: Any,
    events: Events | None = None,
    **others: Any,
) -> RunnerResult:
    """What a job on this model and these arrays, by role, results in; all else as `prepare_job` has it.

    `events` is told what a search leaves.
    """
    job = prepare_job(workdir, model, data, *arguments, **others)
    return (search if job.request and job.request.recipe == "auto" else run)(job, workdir, events or Events())


def prepare_job(
    workdir: Path,
    model: onnx.ModelProto,
    data: dict[str, dict[str, np.ndarray]],
    budget: float = BUDGET_SECONDS,
    *,
    pieces: dict[str, str] | None = None,
    timing_rounds: int = TIMING_ROUNDS,
    round_seconds: float = ROUND_SECONDS,
    **request: Any,
) -> RunnerJob:
    """The job, its files in `workdir`; `request` is its body, `pieces` are what earlier searches left, by key."""
    (workdir / PIECE_FOLDER).mkdir(parents=True, exist_ok=True)
    (workdir / "upload").write_bytes(model.SerializeToString())
    datasets = {}
    for role, arrays in data.items():
        np.savez(workdir / f"{role}.npz", allow_pickle=False, **arrays)
        datasets[role] = input_file(workdir / f"{role}.npz", f"my {role}", "application/x-npz")
    body = {"model_id": str(uuid.uuid4()), "data": {role: str(uuid.uuid4()) for role in data}, **request}
    return RunnerJob(
        kind=JobKind.OPTIMIZE,
        model=input_file(workdir / "upload", "my model.onnx", "application/octet-stream"),
        datasets=datasets,
        request=settled(OptimizeRequest.model_validate(body), workdir / "upload", model, data),
        threads=1,
        timing_rounds=timing_rounds,
        round_seconds=round_seconds,
        budget_seconds=budget,
        memory_bytes=4 << 30,
        pieces=pieces or {},
        piece_bytes=1 << 30,
    )


def settled(
    request: OptimizeRequest, path: Path, model: onnx.ModelProto, data: dict[str, dict[str, np.ndarray]]
) -> OptimizeRequest:
    """With the metric that its submission settles."""
    facts = ModelInspection.model_construct(
        inputs=specs.input_specs(model), outputs=specs.output_specs(model, session.load(path))
    )
    arrays = {
        role: [ArraySpec(name=name, dtype=one.dtype.name, shape=list(one.shape)) for name, one in found.items()]
        for role, found in data.items()
    }
    metric = choose_metric(request.metric, facts, judging_arrays(request, arrays))
    return request.model_copy(update={"metric": metric})
