"""Which queue a job waits in. A queue is what its workers can do: a device, and whether they can train for it."""

from app.recipes.catalogue import CATALOGUE
from app.recipes.request import OptimizeRequest

INSPECTION_QUEUE = "inspect"
DEVICE_QUEUES = {"cpu": "cpu", "cuda": "gpu"}
TRAINING = "-training"
TRAINING_QUEUES = tuple(f"{queue}{TRAINING}" for queue in DEVICE_QUEUES.values())


def needs_trainer(request: OptimizeRequest) -> bool:
    """Whether only a worker that can train may take the job. Nothing else decides it."""
    return names_trainer(request) or bool(request.search and request.search.training)


def names_trainer(request: OptimizeRequest) -> bool:
    """Whether it does for a pass that the request names."""
    return any("trainable_model" in CATALOGUE[config.pass_].needs(config) for config in request.passes)


def queue_of(request: OptimizeRequest) -> str:
    """The queue that the job waits in."""
    queue = DEVICE_QUEUES[request.target.device]
    return f"{queue}{TRAINING}" if needs_trainer(request) else queue


def queues_served(queues: list[str], *, can_train: bool) -> list[str]:
    """Those of a worker that was started for `queues`: who can train takes the jobs that train for its devices too."""
    more = [f"{queue}{TRAINING}" for queue in queues if queue in DEVICE_QUEUES.values()] if can_train else []
    return [*queues, *(queue for queue in more if queue not in queues)]
