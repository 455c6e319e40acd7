"""Whether a live worker can carry out a request: a job that none can take would wait without a reason."""

from collections.abc import Sequence

from app.errors import NoGpuWorker, TooManyThreads
from app.health.tables import WorkerRow
from app.recipes.request import Target

QUEUES = {"cpu": "cpu", "cuda": "gpu"}


def check_capacity(target: Target, workers: Sequence[WorkerRow]) -> None:
    """Where no worker for the CPU is heard of, they are just starting again, and what they have is not known.

    Raises:
        NoGpuWorker: the job is for a GPU, and no live worker serves its queue; many services have none.
        TooManyThreads: the live workers are known, and none has that many cores.

    """
    queue = QUEUES[target.device]
    serving = [worker for worker in workers if queue in worker.queues]
    if target.device == "cuda" and not serving:
        raise NoGpuWorker(
            f"`target.device` is cuda, and no live worker takes jobs from the queue `{queue}`.",
            remedy=f"Start a worker with a GPU on the queue `{queue}` (/readyz lists the live ones), or leave "
            "`target.device` at cpu.",
        )
    known = [worker.threads for worker in serving if worker.threads is not None]
    if target.threads is not None and known and len(known) == len(serving) and target.threads > max(known):
        raise TooManyThreads(
            f"`target.threads` is {target.threads}; the largest live worker gives a model {max(known)}.",
            remedy=f"Ask for {max(known)} or fewer, or leave it out for all that the worker has.",
        )
