"""How many jobs of a workspace may wait, and how many inspections."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.limits import limits_of
from app.config import LimitSettings
from app.errors import TooManyQueuedInspections, TooManyQueuedJobs
from app.jobs.routing import INSPECTION_QUEUE
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow

RETRY_SECONDS = 15


async def refuse_another(session: AsyncSession, workspace_id: UUID, defaults: LimitSettings) -> None:
    """Last before a job is queued; inspections do not count, they have their own limit.

    Raises TooManyQueuedJobs.
    """
    most = (await limits_of(session, workspace_id, defaults, hold=True)).queued_jobs
    if not most:
        return
    waiting = select(func.count()).where(
        JobRow.workspace_id == workspace_id, JobRow.state == JobState.QUEUED, JobRow.kind == JobKind.OPTIMIZE
    )
    if (await session.execute(waiting)).scalar_one() >= most:
        raise TooManyQueuedJobs(
            f"{most} jobs of this workspace wait already, and it may have no more.",
            remedy="Submit again when some have run, or cancel some; `lathe workspaces limit` allows more.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )


async def refuse_excess_inspections(
    session: AsyncSession, workspace_id: UUID, defaults: LimitSettings, *, more: int = 0
) -> None:
    """Last in the transaction that queued an inspection, or before so many `more` are. Raises
    TooManyQueuedInspections.
    """
    most = defaults.queued_inspections
    if not most:
        return
    await limits_of(session, workspace_id, defaults, hold=True)
    waiting = select(func.count()).where(
        JobRow.workspace_id == workspace_id, JobRow.state == JobState.QUEUED, JobRow.queue == INSPECTION_QUEUE
    )
    if (await session.execute(waiting)).scalar_one() + more > most:
        raise TooManyQueuedInspections(
            f"{most} uploads of this workspace wait for their inspection already, and no more may.",
            remedy="Send it again when some have been inspected. LATHE_LIMITS_QUEUED_INSPECTIONS sets the most.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
