"""Waking workers. A message carries a job's id and nothing else; losing one loses nothing."""

from typing import Any
from uuid import UUID

import structlog
from anyio import CapacityLimiter, move_on_after, to_thread
from celery import Celery
from kombu.exceptions import OperationalError

from app.config import Settings

RUN_JOB = "jobs.run"
PRIORITY_STEPS = [0, 1, 2]
# Threads of a process that wake, fewer than Celery has connections to send by; and how long a wake-up waits for one.
WAKERS = 8
WAKER_SECONDS = 1.0
log = structlog.get_logger()


def broker_url(redis_url: str) -> str:
    """REDIS_URL as kombu spells it: a Unix socket is `unix:///path` to redis-py and `redis+socket:///path` to kombu."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def plain_url(redis_url: str) -> str:
    """REDIS_URL as redis-py spells it."""
    return redis_url.replace("redis+socket://", "unix://", 1)


def make_celery(settings: Settings) -> Celery:
    """The Celery application that both sides share: acknowledge early, keep no results, JSON only."""
    celery = Celery("lathe", broker=broker_url(settings.redis_url.get_secret_value()))
    celery.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        # A message is acknowledged as its job starts: a busy worker would fetch one more, and sit on it.
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        task_store_errors_even_if_ignored=False,
        task_default_queue="cpu",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "health_check_interval": 10,
            "retry_on_timeout": False,
            # Priorities come first. Of equal ones, who takes from several queues takes from each by turns.
            "queue_order_strategy": "round_robin",
            "priority_steps": PRIORITY_STEPS,
        },
    )
    return celery


class Queue:
    """The API's and housekeeping's end of the queue."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)
        # Who sends does not wait for a broker that is down: kombu would try for six seconds.
        self._celery.conf.broker_transport_options |= {"max_retries": 0, "interval_start": 0, "interval_step": 0}
        self._wakers = CapacityLimiter(WAKERS)

    def wake(self, job_id: UUID, queue: str, priority: int) -> bool:
        """Tell a worker of a queued job. False where the broker does not answer: housekeeping will tell it again."""
        options: dict[str, Any] = {"queue": queue, "priority": priority, "retry": False, "ignore_result": True}
        try:
            self._celery.send_task(RUN_JOB, args=[str(job_id)], **options)
        except (OperationalError, OSError) as error:
            log.warning("wake_failed", job_id=str(job_id), error=str(error))
            return False
        return True

    async def wake_soon(self, job_id: UUID, queue: str, priority: int) -> None:
        """As `wake`, in one of a few threads of its own: a broker that says nothing takes none from what others do.

        Where all of them wait for it, housekeeping wakes in place of this.
        """
        with move_on_after(WAKER_SECONDS) as waiting:
            await to_thread.run_sync(self.wake, job_id, queue, priority, limiter=self._wakers)
        if waiting.cancelled_caught:
            log.warning("wake_failed", job_id=str(job_id), error="the broker keeps all threads waiting")

    def depth(self, queue: str) -> int:
        """Messages that wait in a queue. Raises OperationalError where the broker does not answer."""
        with self._celery.connection_for_write(connect_timeout=2) as connection:
            return int(connection.default_channel.queue_declare(queue=queue).message_count)

    def ping(self) -> None:
        """Ask the broker whether it is there. Raises OperationalError where the broker does not answer."""
        with self._celery.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def close(self) -> None:
        self._celery.close()
