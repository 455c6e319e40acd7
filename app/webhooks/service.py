"""Making, finding and deleting webhooks; for the API and for the command line, which has no key."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access import audit
from app.access.service import Caller, without_key
from app.access.tables import Action, WorkspaceRow
from app.errors import NotFound, TooManyWebhooks
from app.paging import cut, page_of
from app.webhooks.schemas import WebhookDelivery
from app.webhooks.signing import message_id
from app.webhooks.tables import DeliveryRow, WebhookRow

MOST = 20


def create(session: Session, workspace_id: UUID, url: str, caller: Caller | None = None) -> WebhookRow:
    """A webhook at an address that was looked at before. Raises TooManyWebhooks."""
    session.execute(select(WorkspaceRow.id).where(WorkspaceRow.id == workspace_id).with_for_update(key_share=True))
    refuse_excess(session, workspace_id)
    row = WebhookRow(workspace_id=workspace_id, url=url)
    session.add(row)
    session.flush()
    session.refresh(row)
    _tell(session, row, Action.WEBHOOK_CREATED, caller)
    return row


def refuse_excess(session: Session, workspace_id: UUID) -> None:
    """Raises TooManyWebhooks where the workspace has as many as it may have."""
    count = select(func.count()).select_from(WebhookRow).where(WebhookRow.workspace_id == workspace_id)
    if session.execute(count).scalar_one() >= MOST:
        raise TooManyWebhooks(f"The workspace has {MOST} webhooks.", remedy="Delete one that is not needed any more.")


def find(session: Session, workspace_id: UUID, webhook_id: UUID) -> WebhookRow:
    """The row of a webhook of this workspace. Raises NotFound."""
    mine = select(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.workspace_id == workspace_id)
    row = session.scalars(mine).one_or_none()
    if row is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return row


def remove(session: Session, workspace_id: UUID, webhook_id: UUID, caller: Caller | None = None) -> None:
    """Delete it with its messages; one that is on its way may still arrive. Raises NotFound."""
    row = find(session, workspace_id, webhook_id)
    _tell(session, row, Action.WEBHOOK_DELETED, caller)
    session.delete(row)
    session.flush()


def list_page(
    session: Session, workspace_id: UUID, *, limit: int, cursor: str | None
) -> tuple[list[WebhookRow], str | None]:
    """One page, newest first, and the cursor of the next."""
    mine = select(WebhookRow).where(WebhookRow.workspace_id == workspace_id)
    page, next_cursor = cut(session.scalars(page_of(mine, WebhookRow.id, limit, cursor)).all(), limit)
    return list(page), next_cursor


def list_deliveries(
    session: Session, workspace_id: UUID, webhook_id: UUID, *, state: str | None, limit: int, cursor: str | None
) -> tuple[list[WebhookDelivery], str | None]:
    """One page of a webhook's messages, newest first, and the cursor of the next. Raises NotFound."""
    row = find(session, workspace_id, webhook_id)
    statement = select(DeliveryRow).where(DeliveryRow.webhook_id == row.id)
    if state is not None:
        statement = statement.where(DeliveryRow.state == state)
    rows = session.scalars(page_of(statement, DeliveryRow.id, limit, cursor)).all()
    page, next_cursor = cut(rows, limit)
    return [show(delivery) for delivery in page], next_cursor


def show(row: DeliveryRow) -> WebhookDelivery:
    made: dict[str, Any] = {
        "message_id": message_id(row.id),
        "type": row.payload["type"],
        "next_attempt_at": row.due_at if row.state == "waiting" else None,
    }
    same = {name: getattr(row, name) for name in WebhookDelivery.model_fields if name not in made}
    return WebhookDelivery.model_validate(same | made)


def _tell(session: Session, row: WebhookRow, action: Action, caller: Caller | None) -> None:
    """Into the audit log; without the address, for some bear a secret."""
    if caller is not None:
        audit.record(session, caller, action, row.id)
    else:
        session.add(without_key(row.workspace_id, action, row.id))
