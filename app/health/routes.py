"""Alive, ready, measured: for whoever runs the service, without a key."""

import asyncio
from importlib.metadata import version
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.database import DATABASE_AWAY
from app.dependencies import QueueDep, StorageDep, WholeDatabaseDep
from app.health import metrics, service
from app.health.recent import Health
from app.health.schemas import Alive, Links, Readiness
from app.problems import responses

router = APIRouter(tags=["health"])
VERSION = version("lathe")
# Prometheus waits 10 s by default; the figures of requests must not be lost with those of jobs.
PATIENCE_SECONDS = 5.0
log = structlog.get_logger()


async def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


HealthDep = Annotated[Health, Depends(_health)]


@router.get("/", response_model=Links, summary="Links", operation_id="get_links", responses=responses(key=False))
async def get_links() -> Links:
    """Where to go from here."""
    return Links(
        service="Lathe: makes trained models smaller and faster, and proves what it did",
        version=VERSION,
        documentation="/docs",
        openapi="/openapi.json",
        ready="/readyz",
    )


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    response_model=Alive,
    summary="Is the process alive",
    operation_id="get_health",
    responses=responses(key=False),
)
async def get_health() -> Alive:
    """Answers as long as the process does; looks at nothing else."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Can the service work",
    operation_id="get_readiness",
    responses=responses(key=False)
    | {503: {"model": Readiness, "description": "A component does not answer; `components` says which."}},
)
async def get_readiness(
    database: WholeDatabaseDep, queue: QueueDep, storage: StorageDep, health: HealthDep, response: Response
) -> Readiness:
    """Postgres, Redis, storage and live workers, each asked for two seconds at most; and how workers are confined.

    `storage_mark` tells whether storage is that of this database. What they said is kept for a moment
    (`LATHE_API_HEALTH_CACHE_SECONDS`).
    """
    found = await health.readiness.get(lambda: service.readiness(database, queue, storage))
    response.status_code = 200 if found.ready else 503
    response.headers["Cache-Control"] = "no-store"
    return found


@router.get(
    "/metrics",
    response_class=Response,
    summary="Metrics",
    operation_id="get_metrics",
    responses=responses(key=False)
    | {
        200: {
            "description": "The text format of Prometheus.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def get_metrics(database: WholeDatabaseDep, health: HealthDep) -> Response:
    """Requests and bytes of this process; jobs and live workers of the whole service.

    Of jobs: how many by state and by pass, how long they wait and run and what memory their runners take, the oldest
    queued one's age, those past their lease; these are kept for a moment (`LATHE_API_HEALTH_CACHE_SECONDS`). Where
    Postgres does not give them within 5 seconds they are left out, and `lathe_job_figures_known` is 0.
    """
    figures = b""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            figures = await health.figures.get(lambda: metrics.of_jobs_and_workers(database, health.job_totals))
    except (TimeoutError, *DATABASE_AWAY) as error:
        log.warning("job_figures_missing", error=str(error) or type(error).__name__)
    metrics.JOB_FIGURES_KNOWN.set(bool(figures))
    return Response(
        metrics.of_requests() + figures, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    )
