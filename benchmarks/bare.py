"""The floor that `GET /v1/jobs/{id}` is held against: one route, one indexed SELECT, the same pool settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI, Request
from sqlalchemy import select

from app.config import get_settings
from app.database import AsyncDatabase
from app.jobs.tables import JobRow


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.database = AsyncDatabase(get_settings())
    yield
    await app.state.database.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/jobs/{job_id}")
async def read_job(job_id: UUID, request: Request) -> dict[str, object]:
    async with request.app.state.database.session_scope() as session:
        row = (await session.execute(select(JobRow).where(JobRow.id == job_id))).scalar_one()
    return {"id": row.id, "state": row.state, "progress": row.progress, "created_at": row.created_at}
