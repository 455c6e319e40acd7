"""Figures for Prometheus: requests as this process saw them, jobs and workers as the database has them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.database import AsyncDatabase
from app.health.job_figures import JobTotals, read_job_figures
from app.health.service import live_workers
from app.jobs.routing import DEVICE_QUEUES, INSPECTION_QUEUE, TRAINING_QUEUES

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


RECEIVED_BYTES = Counter(
    "lathe_http_received_bytes_total",
    "Bytes of requests' bodies, uploads among them.",
    ("method", "route"),
    registry=REQUESTS,
)
SENT_BYTES = Counter("lathe_http_sent_bytes_total", "Bytes of answers' bodies.", ("method", "route"), registry=REQUESTS)
JOB_FIGURES_KNOWN = Gauge(
    "lathe_job_figures_known",
    "1 where figures of jobs and workers are among these; 0 where the database did not give them in time.",
    registry=REQUESTS,
)


def of_requests() -> bytes:
    """What this process saw, in the text format of Prometheus."""
    return generate_latest(REQUESTS)


async def of_jobs_and_workers(database: AsyncDatabase, job_totals: JobTotals) -> bytes:
    """What the database has, in the same format. Raises what `DATABASE_AWAY` lists."""
    registry = CollectorRegistry()
    async with database.session_scope() as session:
        registry.register(await read_job_figures(session, job_totals))
        workers = await live_workers(session)
    live = Gauge(
        "lathe_live_workers",
        "Workers seen in the last minute, by queue; those that can train take from `-training` as well.",
        ("queue",),
        registry=registry,
    )
    for queue in (INSPECTION_QUEUE, *DEVICE_QUEUES.values(), *TRAINING_QUEUES):
        live.labels(queue).set(0)
    for worker in workers:
        for queue in worker.queues:
            live.labels(queue).inc()
    return generate_latest(registry)
