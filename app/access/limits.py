"""What a workspace may take: its own limits where it has some, else those of the service."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.access.tables import WorkspaceRow
from app.config import LimitSettings

NAMES = ("requests_per_minute", "stored_bytes", "queued_jobs", "running_jobs")


@dataclass(frozen=True)
class Limits:
    """0: no limit."""

    stored_bytes: int
    queued_jobs: int


async def limits_of(
    session: AsyncSession, workspace_id: UUID, defaults: LimitSettings, *, hold: bool = False
) -> Limits:
    """With `hold` nobody else who asks so gets an answer before this transaction ends.

    So two requests that both find room for one more cannot both take it.
    """
    names = ("stored_bytes", "queued_jobs")
    statement = select(
        *(func.coalesce(getattr(WorkspaceRow, name), getattr(defaults, name)).label(name) for name in names)
    ).where(WorkspaceRow.id == workspace_id)
    if hold:
        statement = statement.with_for_update(key_share=True)
    return Limits(**(await session.execute(statement)).one()._asdict())


def list_workspaces(session: Session) -> list[WorkspaceRow]:
    """Every workspace, by name."""
    return list(session.scalars(select(WorkspaceRow).order_by(WorkspaceRow.name)))
