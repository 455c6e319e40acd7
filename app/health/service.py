"""What is alive."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import anyio
import anyio.to_thread
import structlog
from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.blobs import mark
from app.database import AsyncDatabase
from app.errors import LatheError, Unavailable
from app.health.schemas import Component, Readiness, WorkerStatus
from app.health.tables import WorkerRow
from app.jobs.routing import DEVICE_QUEUES, INSPECTION_QUEUE
from app.queue import Queue
from app.storage import Storage

LIVE_SECONDS = 60
CHECK_SECONDS = 2.0
NEEDED_QUEUES = (INSPECTION_QUEUE, DEVICE_QUEUES["cpu"])
log = structlog.get_logger()


async def live_workers(session: AsyncSession) -> Sequence[WorkerRow]:
    """Workers that announced themselves in the last minute, by name."""
    takes_jobs = func.cardinality(WorkerRow.queues) > 0
    return (await session.execute(live_processes().where(takes_jobs))).scalars().all()


def live_processes() -> Select[WorkerRow]:
    """Of those that announced themselves in the last minute, by name: workers, and housekeeping, which has no queue."""
    lately = WorkerRow.seen_at > func.now() - timedelta(seconds=LIVE_SECONDS)
    return select(WorkerRow).where(lately).order_by(WorkerRow.name)


async def readiness(database: AsyncDatabase, queue: Queue, storage: Storage) -> Readiness:
    """Ask every part at the same time; one that does not answer within two seconds has failed."""
    workers: list[WorkerRow] = []

    async def ask_postgres() -> str:
        async with database.session_scope() as session:
            if (await session.execute(text("SHOW transaction_read_only"))).scalar_one() == "on":
                await (await session.connection()).invalidate()  # the next look is at another one
                raise Unavailable("takes no writes")
            workers.extend(await live_workers(session))
        return "answers"

    async def ask_redis() -> str:
        await anyio.to_thread.run_sync(queue.ping, abandon_on_cancel=True)
        return "answers"

    async def ask_mark() -> str:
        if reason := await mark.settle(database, storage):
            raise Unavailable(reason)
        return "that of this database"

    components: dict[str, Component] = {}
    parts = {"postgres": ask_postgres, "redis": ask_redis, "storage": storage.ping, "storage_mark": ask_mark}

    async def check(name: str, ask: Callable[[], Awaitable[str]]) -> None:
        components[name] = await _ask(name, ask)

    async with anyio.create_task_group() as group:
        for name, ask in parts.items():
            group.start_soon(check, name, ask)
    for name in NEEDED_QUEUES:
        components[f"worker_{name}"] = _count(name, workers)
    return Readiness(
        ready=all(component.ok for component in components.values()),
        components=dict(sorted(components.items())),
        workers=[
            WorkerStatus.model_validate({field: getattr(row, field) for field in WorkerStatus.model_fields})
            for row in workers
        ],
    )


def _count(queue: str, workers: Sequence[WorkerRow]) -> Component:
    """How many take jobs from the queue, and how many of those could train; there need not be any that can."""
    serving = [worker for worker in workers if queue in worker.queues]
    detail = f"{len(serving)} live worker{'s' if len(serving) != 1 else ''} on the queue `{queue}`"
    if queue in DEVICE_QUEUES.values():
        detail += f", {sum(worker.trains for worker in serving)} that can train"
    return Component(ok=bool(serving), detail=detail)


async def _ask(name: str, ask: Callable[[], Awaitable[str]]) -> Component:
    """Anybody may ask, so that an error's own words go to the log."""
    try:
        with anyio.fail_after(CHECK_SECONDS):
            return Component(ok=True, detail=await ask())
    except TimeoutError:
        return Component(ok=False, detail=f"does not answer within {CHECK_SECONDS:g} s")
    except LatheError as error:
        return Component(ok=False, detail=error.detail)
    except Exception as error:  # whatever a driver raises, the component is not ready
        log.warning("component_down", component=name, error=str(error))
        return Component(ok=False, detail="does not answer")
