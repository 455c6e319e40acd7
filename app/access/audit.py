"""Who did what: an entry for each thing made, let go of, stopped or allowed, in the transaction that did it."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.access.schemas import AuditEntry
from app.access.service import Caller
from app.access.tables import Action, ApiKeyRow, AuditRow
from app.paging import cut, page_of


def record(session: AsyncSession | Session, caller: Caller, action: Action, object_id: UUID, **details: object) -> None:
    """Written with the rest of the transaction, or not at all."""
    session.add(
        AuditRow(
            workspace_id=caller.workspace_id,
            key_id=caller.key_id,
            request_id=caller.request_id,
            action=action,
            object_id=object_id,
            details=details,
        )
    )


async def list_page(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    action: str | None,
    object_id: UUID | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[AuditEntry], str | None]:
    """One page, newest first, and the cursor of the next."""
    known = (getattr(AuditRow, name) for name in AuditEntry.model_fields if hasattr(AuditRow, name))
    statement = (
        select(*known, ApiKeyRow.prefix.label("key_prefix"))
        .outerjoin(ApiKeyRow, ApiKeyRow.id == AuditRow.key_id)
        .where(AuditRow.workspace_id == workspace_id)
    )
    if action is not None:
        statement = statement.where(AuditRow.action == action)
    if object_id is not None:
        statement = statement.where(AuditRow.object_id == object_id)
    rows = (await session.execute(page_of(statement, AuditRow.id, limit, cursor))).all()
    page, next_cursor = cut(rows, limit)
    return [AuditEntry.model_validate(row._asdict()) for row in page], next_cursor
