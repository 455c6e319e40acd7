"""Figures for Prometheus: requests as this process saw them, jobs and workers as the database has them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.health.service import live_workers
from app.jobs.routing import DEVICE_QUEUES, INSPECTION_QUEUE, TRAINING_QUEUES
from app.jobs.states import JobState
from app.jobs.tables import JobRow

REQUESTS = CollectorRegistry()
REQUEST_COUNT = Counter(
    "lathe_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=REQUESTS
)
REQUEST_SECONDS = Histogram(
    "lathe_http_request_seconds",
    "Time until the response began, in seconds; for uploads this includes their body.",
    ("method", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REQUESTS,
)


async def render(session: AsyncSession) -> bytes:
    """Everything, in the text format of Prometheus."""
    registry = CollectorRegistry()
    jobs = Gauge("lathe_jobs", "Jobs by state.", ("state", "queue", "kind"), registry=registry)
    counts = select(JobRow.state, JobRow.queue, JobRow.kind, func.count()).group_by(
        JobRow.state, JobRow.queue, JobRow.kind
    )
    for state, queue, kind, count in (await session.execute(counts)).all():
        jobs.labels(state, queue, kind).set(count)
    age = Gauge(
        "lathe_oldest_queued_seconds", "Age of the oldest queued job, in seconds.", ("queue",), registry=registry
    )
    ages = (
        select(JobRow.queue, func.extract("epoch", func.now() - func.min(JobRow.created_at)))
        .where(JobRow.state == JobState.QUEUED)
        .group_by(JobRow.queue)
    )
    for queue, seconds in (await session.execute(ages)).all():
        age.labels(queue).set(float(seconds))
    live = Gauge(
        "lathe_live_workers",
        "Workers seen in the last minute, by queue; those that can train take from `-training` as well.",
        ("queue",),
        registry=registry,
    )
    for queue in (INSPECTION_QUEUE, *DEVICE_QUEUES.values(), *TRAINING_QUEUES):
        live.labels(queue).set(0)
    for worker in await live_workers(session):
        for queue in worker.queues:
            live.labels(queue).inc()
    return generate_latest(REQUESTS) + generate_latest(registry)
