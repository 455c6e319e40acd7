"""Picking one of a job's models after its end. The job's row never changes again, so this is written beside it."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.artifacts.tables import ArtifactRow, PromotionRow
from app.errors import JobNotOver, NotAModel, NotFound
from app.jobs.states import TERMINAL, JobState
from app.jobs.tables import JobRow

MODEL = "model"


async def promote(session: AsyncSession, workspace_id: UUID, job_id: UUID, artifact_id: UUID) -> None:
    """Let this model stand for its job; the same one again changes nothing. Raises NotFound, JobNotOver, NotAModel."""
    state = await session.scalar(select(JobRow.state).where(JobRow.id == job_id, JobRow.workspace_id == workspace_id))
    if state is None:
        raise NotFound(f"There is no job {job_id}.")
    if JobState(state) not in TERMINAL:
        raise JobNotOver(f"The job {job_id} is {state}.", remedy="Wait for its end, or cancel it.")
    kind = await session.scalar(
        select(ArtifactRow.kind)
        .where(ArtifactRow.id == artifact_id, ArtifactRow.job_id == job_id)
        # Held, so that it does not expire before the row that refers to it is written.
        .with_for_update(read=True, key_share=True)
    )
    if kind is None:
        raise NotFound(f"The job {job_id} has no artifact {artifact_id}.", remedy="The job lists its artifacts.")
    if kind != MODEL:
        raise NotAModel(
            f"The artifact {artifact_id} is of kind `{kind}`.",
            remedy="Name one of the job's artifacts of kind `model`.",
        )
    last = select(PromotionRow.artifact_id).where(PromotionRow.job_id == job_id).order_by(PromotionRow.id.desc())
    if await session.scalar(last.limit(1)) != artifact_id:
        session.add(PromotionRow(job_id=job_id, artifact_id=artifact_id))
        await session.flush()
