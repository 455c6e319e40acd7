"""What this worker can do beside what every one can: train, where torch is installed."""

import importlib.util

from app.config import Settings
from app.jobs.routing import DEVICE_QUEUES
from app.recipes.catalogue import CATALOGUE


def can_train(settings: Settings) -> bool:
    """Whether torch is there, and this worker is not told to leave it alone. Does not import it."""
    return settings.worker.trains == "auto" and importlib.util.find_spec("torch") is not None


def passes_served(settings: Settings, queues: list[str]) -> list[str]:
    """The passes that a worker on these queues can run."""
    if not set(queues) & set(DEVICE_QUEUES.values()):
        return []
    trains = can_train(settings)
    return [entry.name for entry in CATALOGUE.values() if trains or not entry.needs_torch]
