"""Finding artifacts."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.artifacts.schemas import Artifact
from app.artifacts.tables import ArtifactRow
from app.errors import NotFound


async def find(session: AsyncSession, workspace_id: UUID, artifact_id: UUID) -> ArtifactRow:
    """The row of an artifact of this workspace. Raises NotFound."""
    row = (
        await session.execute(
            select(ArtifactRow).where(ArtifactRow.id == artifact_id, ArtifactRow.workspace_id == workspace_id)
        )
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(
            f"There is no artifact {artifact_id}.",
            remedy="A job lists its artifacts; the best that a search has found so far is replaced by a better one. "
            "What jobs delivered is deleted after some days where the workspace is set so.",
        )
    return row


def show(row: ArtifactRow) -> Artifact:
    made = {"sha256": row.sha256.hex(), "provisional": row.trial is not None}
    same = {name: getattr(row, name) for name in Artifact.model_fields if name not in made}
    return Artifact.model_validate(same | made)
