"""`/v1/audit`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.access import audit
from app.access.dependencies import Administrator
from app.access.schemas import AuditEntry
from app.access.tables import Action
from app.dependencies import DatabaseDep
from app.errors import InvalidCursor
from app.paging import Cursor, Limit, Page
from app.problems import responses

router = APIRouter(prefix="/audit", tags=["access"])


@router.get(
    "",
    response_model=Page[AuditEntry],
    summary="Read the audit log",
    operation_id="list_audit",
    responses=responses(InvalidCursor),
)
async def list_audit(
    caller: Administrator,
    database: DatabaseDep,
    action: Annotated[Action | None, Query(description="Only entries of this action.")] = None,
    object_id: Annotated[UUID | None, Query(description="Only entries of this model, dataset, job or key.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AuditEntry]:
    """What was made, deleted, cancelled, promoted and allowed in the workspace, and by which key, newest first.

    Entries are only ever added. It takes the scope `admin`.
    """
    async with database.reading_scope() as session:
        entries, next_cursor = await audit.list_page(
            session, caller.workspace_id, action=action, object_id=object_id, limit=limit, cursor=cursor
        )
    return Page(items=entries, next_cursor=next_cursor)
