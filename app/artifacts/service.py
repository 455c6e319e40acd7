"""Finding artifacts, and deleting them."""

from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.service import Caller
from app.access.tables import Action
from app.artifacts.schemas import Artifact
from app.artifacts.tables import ArtifactRow, PromotionRow
from app.errors import ArtifactPromoted, JobNotOver, NotFound
from app.jobs.states import TERMINAL, JobState
from app.jobs.tables import JobRow


async def find(session: AsyncSession, workspace_id: UUID, artifact_id: UUID, *, hold: bool = False) -> ArtifactRow:
    """The row of an artifact of this workspace. Raises NotFound.

    With `hold` nobody else promotes or deletes it before this transaction ends.
    """
    statement = select(ArtifactRow).where(ArtifactRow.id == artifact_id, ArtifactRow.workspace_id == workspace_id)
    row = (await session.execute(statement.with_for_update() if hold else statement)).scalar_one_or_none()
    if row is None:
        raise NotFound(
            f"There is no artifact {artifact_id}.",
            remedy="A job lists its artifacts; the best that a search has found so far is replaced by a better one. "
            "What jobs delivered may have been deleted: by somebody, or after some days where the workspace is set so.",
        )
    return row


async def delete(session: AsyncSession, caller: Caller, artifact_id: UUID) -> None:
    """Let go of the row, as expiry does, and leave the bytes to the collector.

    Raises NotFound, JobNotOver, ArtifactPromoted.
    """
    row = await find(session, caller.workspace_id, artifact_id, hold=True)
    state = (await session.execute(select(JobRow.state).where(JobRow.id == row.job_id))).scalar_one()
    if JobState(state) not in TERMINAL:
        raise JobNotOver(
            f"The job {row.job_id} is {state}, and {row.file_name} is the best that it has found so far.",
            remedy=f"Wait for its end, or cancel it: POST /v1/jobs/{row.job_id}/cancel.",
        )
    # Asked for once the row is held: who promoted it just before has committed.
    if (await session.execute(select(exists().where(PromotionRow.artifact_id == artifact_id)))).scalar_one():
        raise ArtifactPromoted(
            f"The artifact {artifact_id} was promoted to stand for the job {row.job_id}.",
            remedy="What was promoted stays, whatever is promoted after it: somebody may rely on it. "
            "Delete other files of the job.",
        )
    await session.delete(row)
    audit.record(session, caller, Action.ARTIFACT_DELETED, artifact_id, job_id=str(row.job_id))


def show(row: ArtifactRow) -> Artifact:
    made = {"sha256": row.sha256.hex(), "provisional": row.trial is not None}
    same = {name: getattr(row, name) for name in Artifact.model_fields if name not in made}
    return Artifact.model_validate(same | made)
