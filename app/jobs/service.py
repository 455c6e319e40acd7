"""Reading jobs."""

from collections.abc import Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Integer, Row, Select, Text, Uuid, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncSession

from app.artifacts.tables import ArtifactRow, PromotionRow
from app.errors import NoReport, NotFound, ReportNotReady
from app.jobs.routing import TRAINING
from app.jobs.schemas import Job, JobEvent
from app.jobs.states import TERMINAL, JobKind, JobState
from app.jobs.tables import WAITING, JobEventRow, JobRow, ReportRow
from app.paging import MAX_PAGE_BYTES, short_page_of


def _jobs() -> Select[Any]:
    """Jobs as the API shows them, each with what it delivered, in one statement; `PLACES` has where they wait."""
    facts = {name: getattr(ArtifactRow, name) for name in ("id", "kind", "file_name", "media_type", "size_bytes")}
    facts["sha256"] = func.encode(ArtifactRow.sha256, "hex")
    facts |= {"provisional": ArtifactRow.trial.is_not(None), "trial": ArtifactRow.trial}
    artifact = func.json_build_object(*chain.from_iterable(facts.items()), type_=JSON)
    # Models first, and of each kind what was delivered first: of a search the winner.
    in_order = (ArtifactRow.kind != "model", ArtifactRow.kind.desc(), ArtifactRow.id)
    artifacts = (
        select(func.json_agg(aggregate_order_by(artifact, *in_order), type_=JSON))
        .where(ArtifactRow.job_id == JobRow.id)
        .scalar_subquery()
    )
    promotion = (
        select(func.max(PromotionRow.id)).where(PromotionRow.job_id == JobRow.id).scalar_subquery().label("promotion")
    )
    promoted = (
        select(PromotionRow.artifact_id)
        .where(PromotionRow.job_id == JobRow.id)
        .order_by(PromotionRow.id.desc())
        .limit(1)
        .scalar_subquery()
        .label("promoted_artifact_id")
    )
    return select(
        *(getattr(JobRow, name) for name in Job.model_fields if hasattr(JobRow, name)),
        JobRow.version,
        JobRow.queue,
        func.coalesce(artifacts, literal_column("'[]'::json")).label("artifacts"),
        promotion,
        promoted,
    )


def _places() -> Select[Any]:
    """How many queued jobs come before each of `job_ids`.

    What waits in `queues` is read once, however many are asked about: once for each would be millions of rows a page.
    """
    workspace_id = bindparam("workspace_id", type_=Uuid())
    # Who can train takes from both queues of a device, so those that wait in one are before those in the other.
    device = func.replace(WAITING.c.queue, TRAINING, "").label("device")
    waiting = (
        select(WAITING.c.id, WAITING.c.workspace_id, WAITING.c.priority, device)
        .where(WAITING.c.queue.in_(bindparam("queues", expanding=True)))
        .cte("waiting")
    )
    order = (waiting.c.priority, waiting.c.id)
    number = func.row_number().over(partition_by=waiting.c.device, order_by=order)
    own = (
        select(waiting.c.id, waiting.c.device, (number - 1).label("before"))
        .where(waiting.c.workspace_id == workspace_id)
        .subquery()
    )
    others = (
        select(waiting.c.device, func.count().label("jobs"))
        .where(waiting.c.workspace_id != workspace_id)
        .group_by(waiting.c.device, waiting.c.workspace_id)
        .subquery()
    )
    # Workspaces take turns: of each other one as many come before it as of its own do.
    turns = func.sum(func.least(func.coalesce(others.c.jobs, 0), own.c.before))
    return (
        select(own.c.id, cast(own.c.before + turns, Integer).label("place"))
        .select_from(own)
        .outerjoin(others, others.c.device == own.c.device)
        .where(own.c.id.in_(bindparam("job_ids", expanding=True)))
        .group_by(own.c.id, own.c.before)
    )


JOBS = _jobs()
PLACES = _places()
TRIED = (
    " What was tried until then is told by the events of types `trial` and `best`; the best of it, where one kept "
    "the contract, is among the job's artifacts."
)
ONE_JOB = JOBS.where(JobRow.id == bindparam("job_id"), JobRow.workspace_id == bindparam("workspace_id"))


async def get_job(session: AsyncSession, workspace_id: UUID, job_id: UUID) -> tuple[Job, str]:
    """The job and its ETag. Raises NotFound."""
    row = (await session.execute(ONE_JOB, {"job_id": job_id, "workspace_id": workspace_id})).one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    [job] = await _with_places(session, workspace_id, [row])
    # What expires changes no row of the job, but what it lists.
    return job, f'"{row.version}.{job.queue_position or 0}.{row.promotion or 0}.{len(job.artifacts)}"'


async def list_jobs(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    state: JobState | None,
    model_id: UUID | None,
    kind: JobKind,
    limit: int,
    cursor: str | None,
) -> tuple[list[Job], str | None]:
    statement = JOBS.where(JobRow.workspace_id == workspace_id, JobRow.kind == kind)
    if state is not None:
        statement = statement.where(JobRow.state == state)
    if model_id is not None:
        statement = statement.where(JobRow.model_id == model_id)
    large = JobRow.request, JobRow.error, JobRow.verdict, JobRow.summary
    page, next_cursor = await short_page_of(session, statement, JobRow.id, limit, cursor, *large)
    return await _with_places(session, workspace_id, (await session.execute(page)).all()), next_cursor


async def _with_places(session: AsyncSession, workspace_id: UUID, rows: Sequence[Row[Any]]) -> list[Job]:
    """Jobs of rows of `JOBS`, each with its place in the queue, where it waits."""
    queued = {row.id: row.queue.removesuffix(TRAINING) for row in rows if row.state == JobState.QUEUED}
    places = dict.fromkeys(queued, 0)  # which stays so where somebody took it since its row was read: it was the next
    if queued:
        queues = [name for device in set(queued.values()) for name in (device, device + TRAINING)]
        asked = {"job_ids": list(queued), "queues": queues, "workspace_id": workspace_id}
        places |= {row.id: row.place for row in await session.execute(PLACES, asked)}
    return [Job.model_validate(row._asdict() | {"queue_position": places.get(row.id)}) for row in rows]


async def get_report(session: AsyncSession, workspace_id: UUID, job_id: UUID) -> dict[str, Any]:
    """The report as it was stored. Raises NotFound, ReportNotReady before the job's end, and NoReport after another."""
    found = (
        await session.execute(
            select(JobRow.state, JobRow.error, JobRow.request["recipe"].astext == "auto", ReportRow.body)
            .outerjoin(ReportRow, ReportRow.job_id == JobRow.id)
            .where(JobRow.id == job_id, JobRow.workspace_id == workspace_id)
        )
    ).one_or_none()
    if found is None:
        raise NotFound(f"There is no job {job_id}.")
    state, error, is_search, body = found
    if body is None:
        raise _no_report(JobState(state), error, TRIED if is_search else "")
    report: dict[str, Any] = body
    search = report.get("search") or {}
    if "attempts" in search and "trials" not in search:  # as `SearchReport` reads it, and as long
        report = report | {"search": search | {"trials": search["attempts"]}}
    return report


def _no_report(state: JobState, error: dict[str, Any] | None, found: str) -> NoReport | ReportNotReady:
    if state not in TERMINAL:
        return ReportNotReady(f"The job is {state.value}.", remedy="Poll the job until it is over." + found)
    if error is not None:
        remedy = f"{error.get('remedy') or ''}{found}".strip() or None
        return NoReport(f"The job {state.value}: {error['detail']} ({error['code']})", remedy=remedy)
    ends = {JobState.CANCELLED: "was cancelled", JobState.EXPIRED: "expired while it waited for a worker"}
    return NoReport(
        f"The job {ends.get(state, state.value)}; a report is what an optimization leaves that succeeds.",
        remedy="Submit it again for one." + found if state in ends else None,
    )


async def find_events(
    session: AsyncSession, workspace_id: UUID, job_id: UUID, after: int, limit: int
) -> tuple[list[JobEvent], JobState]:
    """Events after the given one, oldest first, and the state that the job was in before they were read.

    They are fewer than `limit` where they are large: the one that brings them past MAX_PAGE_BYTES is the last. A job
    that was over when its state was read has no event that these pages miss.
    """
    state = (
        await session.execute(select(JobRow.state).where(JobRow.id == job_id, JobRow.workspace_id == workspace_id))
    ).scalar_one_or_none()
    if state is None:
        raise NotFound(f"There is no job {job_id}.")
    following = (JobEventRow.job_id == job_id, JobEventRow.id > after)
    size = func.length(cast(JobEventRow.data, Text))
    before = func.coalesce(func.sum(size).over(order_by=JobEventRow.id, rows=(None, -1)), 0)
    asked = select(JobEventRow.id, before.label("before")).where(*following).order_by(JobEventRow.id).limit(limit)
    page = asked.subquery()
    fitting = select(page.c.id).where(page.c.before < MAX_PAGE_BYTES)
    rows = await session.execute(select(JobEventRow).where(JobEventRow.id.in_(fitting)).order_by(JobEventRow.id))
    events = [JobEvent(id=row.id, type=row.type, at=row.created_at, data=row.data) for row in rows.scalars()]
    return events, JobState(state)
