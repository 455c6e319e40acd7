"""The application: what it holds, and which routes it answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import Depends, FastAPI

from app.access.dependencies import Authenticator
from app.access.rates import RateLimiter
from app.access.routes import router as audit
from app.answers import JsonLine
from app.artifacts.routes import router as artifacts
from app.blobs.mark import keep_settling
from app.blobs.open_uploads import OpenUploads
from app.config import ApiSettings, Settings, get_settings
from app.database import AsyncDatabase
from app.datasets.routes import router as datasets
from app.documentation import install as install_documentation
from app.health.recent import Health
from app.health.routes import router as health
from app.jobs.routes import router as jobs
from app.jobs.streams import OpenStreams
from app.logs import configure_logs
from app.models.routes import router as models
from app.observation import install as install_observation
from app.problems import install as install_problems
from app.queue import Queue
from app.recipes.routes import router as passes
from app.storage import Storage
from app.surface import Api, refuse_unknown_query
from app.tracing import tracing_of
from app.uploads.routes import router as uploads
from app.webhooks.routes import router as webhooks

# How long a start waits until storage is known to be this database's; that is found out, and it answers, all the same.
SETTLING_SECONDS = 2.0
DESCRIPTION = """Makes trained models smaller and faster, and proves what it did.

Upload an ONNX model and, if you have them, datasets; submit a job; poll it; read its report; download the artifact.
Every error is an RFC 9457 problem document with a stable `code`. Where requests are limited every answer to a key tells
in `RateLimit` what is left of the workspace's, and in `RateLimit-Policy` how many it has.
"""


def lifespan_of(
    settings: Settings, database_of: Callable[[Settings], AsyncDatabase] = AsyncDatabase
) -> Callable[[FastAPI], object]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, ApiSettings]]:
        configure_logs(as_json=settings.log_json)
        app.state.settings = settings
        app.state.database = database_of(settings)
        app.state.storage = Storage(settings)
        app.state.queue = Queue(settings)
        app.state.authenticator = Authenticator(app.state.database, settings)
        app.state.health = Health(settings.api.health_cache_seconds)
        app.state.rate_limiter = RateLimiter(settings)
        app.state.open_streams = OpenStreams(settings.api.event_streams)
        app.state.open_uploads = OpenUploads(settings.api.open_uploads)
        app.state.tracing = tracing_of(settings, "lathe-api")
        settling = asyncio.create_task(keep_settling(app.state.database, app.state.storage))
        await asyncio.wait([settling], timeout=SETTLING_SECONDS)
        yield {"api": settings.api}  # what a connection knows of them: see `heads`
        settling.cancel()
        await asyncio.wait([settling])
        await to_thread.run_sync(app.state.tracing.close)
        await app.state.rate_limiter.close()
        app.state.queue.close()
        await app.state.database.dispose()

    return lifespan


def create_app(settings: Settings | None = None) -> FastAPI:
    app = Api(
        title="Lathe",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan_of(settings or get_settings()),  # type: ignore[arg-type] # FastAPI's type for it is private
        default_response_class=JsonLine,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        dependencies=[Depends(refuse_unknown_query)],
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},  # see `tracing`
    )
    install_problems(app)
    install_observation(app)
    for router in (models, datasets, uploads, passes, jobs, artifacts, webhooks, audit):
        app.include_router(router, prefix="/v1")
    app.include_router(health)
    install_documentation(app)
    return app
