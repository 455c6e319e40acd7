"""The inspection of an uploaded dataset."""

from pathlib import Path

from worker.engine.inspection import dataset
from worker.runner.contract import RunnerJob, RunnerResult
from worker.runner.events import Events

ROLE = "dataset"


def run(job: RunnerJob, workdir: Path, events: Events) -> RunnerResult:
    """Facts of the file in the role `dataset`.

    Arrays may unpack to as much as the runner's memory, or to the size of the file where that is more: they are mapped
    from disk, but a pass that looks at all of them should not meet a thousand times what was uploaded.

    Raises:
        UserFault: the dataset cannot be served.

    """
    events.phase("inspecting", 0.0)
    inspection = dataset.inspect(workdir / job.datasets[ROLE].path, job.memory_bytes, events.progress)
    return RunnerResult(outcome="succeeded", dataset=inspection)
