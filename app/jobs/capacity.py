"""Whether a live worker can carry out a request: a job that none can take would wait without a reason."""

from collections.abc import Sequence

from app.errors import TooManyThreads
from app.health.tables import WorkerRow
from app.recipes.request import Target

QUEUES = {"cpu": "cpu", "cuda": "gpu"}


def check_capacity(target: Target, workers: Sequence[WorkerRow]) -> None:
    """Where no worker of the queue is heard of, they may just be starting again: nothing is refused for its cores.

    Raises:
        TooManyThreads: the live workers are known, and none has that many cores.

    """
    serving = [worker for worker in workers if QUEUES[target.device] in worker.queues]
    known = [worker.threads for worker in serving if worker.threads is not None]
    if target.threads is not None and known and len(known) == len(serving) and target.threads > max(known):
        raise TooManyThreads(
            f"`target.threads` is {target.threads}; the largest live worker gives a model {max(known)}.",
            remedy=f"Ask for {max(known)} or fewer, or leave it out for all that the worker has.",
        )
