"""Webhooks, the ends of jobs, and what a courier makes of them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import select

from app.config import Settings
from app.database import Database
from app.jobs import lease
from app.jobs.states import JobState
from app.webhooks import outbox, service
from app.webhooks.tables import DeliveryRow
from tests.app.jobs.factories import add_job
from worker.courier import Courier


def with_webhooks(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=values)})


@contextmanager
def running(*couriers: Courier) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=courier.run, args=[stop]) for courier in couriers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def add_webhook(database: Database, workspace_id: UUID, url: str) -> UUID:
    with database.session_scope() as session:
        return service.create(session, workspace_id, url).id


def end_a_job(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, workspace_id) is JobState.CANCELLED
    return job_id


def deliveries(database: Database) -> list[DeliveryRow]:
    with database.session_scope() as session:
        return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))


def settled(database: Database) -> bool:
    return all(row.state != "waiting" for row in deliveries(database))


def attempt(courier: Courier, database: Database, settings: Settings) -> str | None:
    """One attempt at the message that is due, as a courier makes it; what the message is then."""
    with database.session_scope() as session:
        taken = outbox.take(session, 60.0)
    assert taken is not None
    outcome = courier.send(taken)
    with database.session_scope() as session:
        own = settings.webhooks
        return outbox.record(
            session, taken, outcome, backoff_seconds=own.backoff_seconds, max_attempts=own.max_attempts
        )
