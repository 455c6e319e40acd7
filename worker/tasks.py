"""The one task: run a job."""

from functools import lru_cache
from typing import Any
from uuid import UUID

import structlog
from celery import Celery, signals

from app.config import get_settings
from app.database import Database
from app.jobs.routing import queues_served
from app.queue import RUN_JOB
from app.storage import Storage
from app.tracing import tracing_of
from worker.abilities import can_train
from worker.presence import Presence
from worker.sandbox import AS_GOOD_AS_IT_GETS, confinement, unmet
from worker.stop import Stop
from worker.storage_mark import StorageMark
from worker.supervisor import Supervisor

LOOK_SECONDS = 0.1
log = structlog.get_logger()
stopping = Stop()


@lru_cache(maxsize=1)
def supervisor() -> Supervisor:
    settings = get_settings()
    tracing = tracing_of(settings, "lathe-worker")
    return Supervisor(settings, Database(settings), Storage(settings), stopping, tracing)


def run_job(job_id: str) -> None:
    """A message is a wake-up and proves nothing: whether there is something to do, the claim decides."""
    try:
        known = UUID(job_id)
    except (TypeError, ValueError, AttributeError):
        log.warning("message_refused", job_id=repr(job_id)[:100])
        return
    supervisor().run(known)


def register(celery: Celery) -> None:
    """Bind the task, and the worker's presence to the worker's life."""
    celery.task(run_job, name=RUN_JOB, ignore_result=True)

    signals.celeryd_init.connect(_demand_sandbox, weak=False)
    signals.celeryd_init.connect(_await_own_storage, weak=False)
    signals.celeryd_after_setup.connect(_take_training, weak=False)
    signals.worker_ready.connect(_announce, weak=False)
    signals.worker_ready.connect(_look_often, weak=False)
    signals.worker_shutting_down.connect(_hand_back, weak=False)


def _demand_sandbox(**_: object) -> None:
    """End before anything is taken from a queue where the sandbox lacks a layer that the operator demands."""
    demand = get_settings().runner.sandbox
    if demand != AS_GOOD_AS_IT_GETS and (reason := unmet(demand, confinement())):
        raise SystemExit(reason)


def _await_own_storage(**_: object) -> None:
    """A worker with another's storage, or an empty folder in its place, would fail every job that it takes."""
    own = supervisor()
    StorageMark(own.database, own.storage).wait()


def _take_training(instance: Any, **_: object) -> None:
    """Jobs that train have queues of their own: a wake-up must not end at a worker that cannot take the job."""
    queues = instance.app.amqp.queues
    for queue in queues_served(list(queues.consume_from), can_train=can_train(get_settings())):
        if queue not in queues.consume_from:
            queues.select_add(queue)


def _announce(sender: Any, **_: object) -> None:
    queues = sorted(sender.app.amqp.queues.consume_from)
    presence = Presence(supervisor().database, get_settings(), queues)
    presence.start()
    signals.worker_shutdown.connect(lambda **_: presence.stop(), weak=False)


def _look_often(sender: Any, **_: object) -> None:
    """The end of a job in a thread does not wake Celery's loop, which would ask for the next one up to 2 s later."""
    sender.hub.call_repeatedly(LOOK_SECONDS, lambda: None)


def _hand_back(**_: object) -> None:
    stopping.set()
