"""The inspection of an uploaded model."""

from pathlib import Path

from worker.engine.inspection import model
from worker.runner.contract import RunnerJob, RunnerResult
from worker.runner.events import Events
from worker.runner.unpacking import unpack_model


def run(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    """Facts of `job.model`.

    Raises:
        UserFault: the model cannot be served.

    """
    if job.model is None:
        raise ValueError("an inspection of a model needs one")
    events.phase("preparing", 0.0)
    path = unpack_model(job.model, workdir)
    events.phase("inspecting", 0.5)
    return RunnerResult(outcome="succeeded", model=model.inspect(path))
