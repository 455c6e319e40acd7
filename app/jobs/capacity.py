"""Whether a live worker can carry out a request: a job that none can take would wait without a reason."""

from collections.abc import Sequence

from app.errors import NoGpuWorker, NoTrainingWorker, TooManyThreads
from app.health.tables import WorkerRow
from app.jobs.routing import DEVICE_QUEUES, names_trainer, needs_trainer, queue_of
from app.recipes.request import OptimizeRequest


def check_capacity(request: OptimizeRequest, workers: Sequence[WorkerRow]) -> None:
    """Where no worker for the CPU is heard of, they are just starting again, and what they have is not known.

    Raises:
        NoGpuWorker: the job is for a GPU, and no live worker serves its queue; many services have none.
        NoTrainingWorker: the job trains, and no live worker for its device can; many services have none.
        TooManyThreads: the live workers are known, and none has that many cores.

    """
    target, queue = request.target, queue_of(request)
    device_queue = DEVICE_QUEUES[target.device]
    if target.device == "cuda" and not any(device_queue in worker.queues for worker in workers):
        raise NoGpuWorker(
            f"`target.device` is cuda, and no live worker takes jobs from the queue `{device_queue}`.",
            remedy=f"Start a worker with a GPU on the queue `{device_queue}` (/readyz lists the live ones), or leave "
            "`target.device` at cpu.",
        )
    serving = [worker for worker in workers if queue in worker.queues]
    if needs_trainer(request) and not serving:
        who, without = "The recipe", "leave out of the recipe what needs one"
        if not names_trainer(request):
            who, without = "A search that may train", "set `search.training` to false"
        raise NoTrainingWorker(
            f"{who} needs a worker that can train, and no live one takes jobs from the queue `{queue}`.",
            remedy=f"Start a worker with torch on the queue `{device_queue}` (/readyz lists the live ones), or "
            f"{without}.",
        )
    known = [worker.threads for worker in serving if worker.threads is not None]
    if target.threads is not None and known and len(known) == len(serving) and target.threads > max(known):
        raise TooManyThreads(
            f"`target.threads` is {target.threads}; the largest live worker gives a model {max(known)}.",
            remedy=f"Ask for {max(known)} or fewer, or leave it out for all that the worker has.",
        )
