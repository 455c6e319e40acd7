"""`/v1/jobs`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import anyio
from fastapi import APIRouter, BackgroundTasks, Body, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from app import links
from app.access import audit
from app.access.dependencies import Reader, Writer, still_valid
from app.access.service import Caller
from app.access.tables import Action
from app.answers import JsonLine
from app.config import Settings
from app.database import WorkspaceDatabase
from app.dependencies import DatabaseDep, QueueDep, SettingsDep
from app.errors import (
    DataMismatch,
    DataRequired,
    DatasetRejected,
    IdempotencyKeyReused,
    InvalidCursor,
    JobNotOver,
    JobOver,
    MetricMismatch,
    ModelRejected,
    NoGpuWorker,
    NoReport,
    NotAModel,
    NotFound,
    NoTrainingWorker,
    NotReady,
    NotTrainable,
    ReportNotReady,
    StorageQuotaExceeded,
    TooManyQueuedJobs,
    TooManyThreads,
)
from app.headers import described
from app.jobs import lease, promotion, service, submission
from app.jobs.examples import SUBMISSIONS
from app.jobs.fitness import BudgetTooLarge, DeviceNotServed, PassMisplaced
from app.jobs.other_models import StudentMismatch
from app.jobs.report import Report
from app.jobs.schemas import Job, JobEvent, JobEvents, Promotion
from app.jobs.search_fitness import NothingToTry, SearchContradictory
from app.jobs.states import TERMINAL, JobKind, JobState
from app.jobs.streams import OpenStreams, TooManyStreams
from app.paging import Cursor, Limit, Page
from app.problems import responses
from app.recipes.request import OptimizeRequest

router = APIRouter(prefix="/jobs", tags=["jobs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key and body again answer the same job; another body under the key is refused. "
        "It is known for `LATHE_JOBS_IDEMPOTENCY_SECONDS`, a week by default.",
    ),
]
JobId = Annotated[UUID, Path(description="The job.")]
After = Annotated[int, Query(ge=0, le=2**63 - 1, description="Only events after this one.")]
POLL_SECONDS = 1
# For a stream to end by itself when the API stops; uvicorn cuts it off after three.
GOODBYE_SECONDS = 2.0
JOB_HEADERS = ("ETag", "Retry-After")


@router.post(
    "",
    status_code=202,
    response_model=Job,
    summary="Submit a job",
    operation_id="submit_job",
    responses=responses(
        NotFound,
        NotReady,
        ModelRejected,
        DatasetRejected,
        DataMismatch,
        StudentMismatch,
        DataRequired,
        MetricMismatch,
        NotTrainable,
        PassMisplaced,
        DeviceNotServed,
        NothingToTry,
        SearchContradictory,
        BudgetTooLarge,
        NoGpuWorker,
        NoTrainingWorker,
        TooManyThreads,
        StorageQuotaExceeded,
        TooManyQueuedJobs,
        IdempotencyKeyReused,
        body=True,
    )
    | {
        202: {
            "description": "The job is accepted.",
            "headers": described("Location", *JOB_HEADERS),
            "links": links.to("job_id", "get_job", "get_events", "get_report", "cancel_job"),
        }
    },
)
async def submit_job(
    body: Annotated[OptimizeRequest, Body(openapi_examples=SUBMISSIONS)],
    caller: Writer,
    database: DatabaseDep,
    queue: QueueDep,
    settings: SettingsDep,
    background: BackgroundTasks,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Accept a job: once this answers 202 it will come to an end of its own, whatever fails in between."""
    async with database.session_scope() as session:
        row, new = await submission.submit(session, caller.workspace_id, body, idempotency_key, settings)
        if new:
            audit.record(session, caller, Action.JOB_SUBMITTED, row.id)
        job, etag = await service.get_job(session, caller.workspace_id, row.id)
    if new:
        background.add_task(queue.wake_soon, row.id, row.queue, row.priority)
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    _add_polling_headers(response, job, etag)
    return job


@router.get(
    "",
    response_model=Page[Job],
    summary="List jobs",
    operation_id="list_jobs",
    responses=responses(InvalidCursor),
)
async def list_jobs(
    caller: Reader,
    database: DatabaseDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    model: Annotated[UUID | None, Query(description="Only jobs on this model.")] = None,
    kind: Annotated[JobKind, Query(description="Only jobs of this kind.")] = JobKind.OPTIMIZE,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Job]:
    """Jobs of the workspace, newest first."""
    async with database.reading_scope() as session:
        jobs, next_cursor = await service.list_jobs(
            session, caller.workspace_id, state=state, model_id=model, kind=kind, limit=limit, cursor=cursor
        )
    return Page(items=jobs, next_cursor=next_cursor)


@router.get(
    "/{job_id}",
    response_model=Job,
    summary="Read a job",
    operation_id="get_job",
    responses=responses(NotFound)
    | {
        200: {"description": "The job.", "headers": described(*JOB_HEADERS)},
        304: {"description": "The job is as `If-None-Match` says.", "headers": described(*JOB_HEADERS)},
    },
)
async def get_job(
    job_id: JobId,
    caller: Reader,
    database: DatabaseDep,
    if_none_match: Annotated[str | None, Header(description="An ETag of this job.")] = None,
) -> Response:
    """One job. Until it is over, `Retry-After` says when to ask again."""
    async with database.reading_scope() as session:
        job, etag = await service.get_job(session, caller.workspace_id, job_id)
    if if_none_match is not None and etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")):
        response = Response(status_code=304)
    else:
        response = JsonLine(job.model_dump_json(by_alias=True))
    _add_polling_headers(response, job, etag)
    return response


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=Job,
    summary="Cancel a job",
    operation_id="cancel_job",
    responses=responses(NotFound, JobOver)
    | {
        202: {
            "description": "The job is cancelled, or was asked to stop.",
            "headers": described(*JOB_HEADERS),
            "links": links.to("job_id", "get_job", "get_events"),
        }
    },
)
async def cancel_job(job_id: JobId, caller: Writer, database: DatabaseDep, response: Response) -> Job:
    """Cancel a queued job at once; ask a running one to stop."""
    async with database.session_scope() as session:
        state = await session.run_sync(lease.cancel, job_id, caller.workspace_id)
        if state is not None:
            audit.record(session, caller, Action.JOB_CANCELLED, job_id)
        job, etag = await service.get_job(session, caller.workspace_id, job_id)
    if state is None:
        raise JobOver(f"The job {job_id} is {job.state.value}.")
    _add_polling_headers(response, job, etag)
    return job


@router.post(
    "/{job_id}/promote",
    response_model=Job,
    summary="Promote a model",
    operation_id="promote_artifact",
    responses=responses(NotFound, JobNotOver, NotAModel, body=True)
    | {200: {"description": "The job, with what stands for it now.", "headers": described("ETag")}},
)
async def promote_artifact(
    job_id: JobId, body: Promotion, caller: Writer, database: DatabaseDep, response: Response
) -> Job:
    """Pick one of the models of a job that is over to stand for it: any point of the front of a search, say.

    Nothing is computed again, and nothing else changes; it can be picked anew at any time, and the last one counts.
    """
    async with database.session_scope() as session:
        await promotion.promote(session, caller.workspace_id, job_id, body.artifact_id)
        audit.record(session, caller, Action.JOB_PROMOTED, job_id, artifact_id=str(body.artifact_id))
        job, etag = await service.get_job(session, caller.workspace_id, job_id)
    _add_polling_headers(response, job, etag)
    return job


@router.get(
    "/{job_id}/report",
    response_model=Report,
    summary="Read a job's report",
    operation_id="get_report",
    responses=responses(NotFound, ReportNotReady, NoReport),
)
async def get_report(job_id: JobId, caller: Reader, database: DatabaseDep) -> Response:
    """Every measurement, the original beside each candidate; the steps and what each left; the manifest."""
    async with database.reading_scope() as session:
        report = await service.get_report(session, caller.workspace_id, job_id)
    return JsonLine(report)


@router.get(
    "/{job_id}/events",
    response_model=JobEvents,
    summary="Follow a job",
    operation_id="get_events",
    responses=responses(NotFound, TooManyStreams)
    | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The events."}},
)
async def get_events(
    job_id: JobId,
    request: Request,
    caller: Reader,
    database: DatabaseDep,
    settings: SettingsDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events a page, at most; fewer where large.")] = 500,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**63 - 1, description="Resume a stream after this event.")
    ] = None,
) -> Any:
    """Server-sent events until the job is over; a JSON list where the request accepts JSON."""
    after = max(after, last_event_id or 0)
    async with database.reading_scope() as session:
        events, _ = await service.find_events(session, caller.workspace_id, job_id, after, limit)
    if "application/json" in request.headers.get("accept", ""):
        return JobEvents(items=events, next_after=events[-1].id if events else after)
    streams: OpenStreams = request.app.state.open_streams
    streams.refuse_excess(caller.workspace_id)
    stopping = anyio.Event()
    return EventSourceResponse(
        _counted(streams, caller, _stream(database, settings, caller, job_id, after, stopping, still_valid(request))),
        ping=15,
        shutdown_event=stopping,
        shutdown_grace_period=GOODBYE_SECONDS,
    )


async def _counted(
    streams: OpenStreams, caller: Caller, events: AsyncIterator[ServerSentEvent]
) -> AsyncIterator[ServerSentEvent]:
    with streams.counted(caller.workspace_id):
        async for event in events:
            yield event


async def _stream(
    database: WorkspaceDatabase,
    settings: Settings,
    caller: Caller,
    job_id: UUID,
    after: int,
    stopping: anyio.Event,
    is_valid: Callable[[], Awaitable[bool]],
) -> AsyncIterator[ServerSentEvent]:
    """Every event after the given one, as it comes; ends with the job, with its key, or when the API stops.

    No connection is held between two looks.
    """
    while not stopping.is_set() and await is_valid():
        async with database.reading_scope() as session:
            events, state = await service.find_events(session, caller.workspace_id, job_id, after, 500)
        for event in events:
            yield _server_sent(event)
            after = event.id
        if state in TERMINAL and not events:
            return
        if not events:
            with anyio.move_on_after(settings.api.event_poll_seconds):
                await stopping.wait()


def _server_sent(event: JobEvent) -> ServerSentEvent:
    return ServerSentEvent(data=event.model_dump_json(), event=event.type, id=str(event.id))


def _add_polling_headers(response: Response, job: Job, etag: str) -> None:
    response.headers["ETag"] = etag
    response.headers["Cache-Control"] = "no-cache"
    if job.state not in TERMINAL:
        response.headers["Retry-After"] = str(POLL_SECONDS)
