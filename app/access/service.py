"""Making, finding and revoking API keys."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.access import keys
from app.access.tables import Action, ApiKeyRow, AuditRow, WorkspaceRow


@dataclass(frozen=True)
class Caller:
    """Who asks: a workspace, through one of its keys."""

    workspace_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    requests_per_minute: int | None = None
    """The workspace's own limit; None: what holds for all."""
    request_id: str | None = None
    """The request that it makes now."""


async def find_caller(session: AsyncSession, prefix: str) -> tuple[Caller, bytes] | None:
    """The caller behind a live key's prefix, with the hash that its secret must match."""
    row = (
        await session.execute(
            select(
                ApiKeyRow.id,
                ApiKeyRow.workspace_id,
                ApiKeyRow.scopes,
                ApiKeyRow.secret_hash,
                WorkspaceRow.requests_per_minute,
            )
            .join(WorkspaceRow, WorkspaceRow.id == ApiKeyRow.workspace_id)
            .where(
                ApiKeyRow.prefix == prefix,
                ApiKeyRow.revoked_at.is_(None),
                (ApiKeyRow.expires_at.is_(None)) | (ApiKeyRow.expires_at > func.now()),
            )
        )
    ).one_or_none()
    if row is None:
        return None
    caller = Caller(row.workspace_id, row.id, frozenset(row.scopes), row.requests_per_minute)
    return caller, row.secret_hash


async def note_use(session: AsyncSession, key_id: UUID) -> None:
    """Keep `last_used_at` good to a minute, without a write at every request."""
    await session.execute(
        update(ApiKeyRow)
        .where(
            ApiKeyRow.id == key_id,
            (ApiKeyRow.last_used_at.is_(None)) | (ApiKeyRow.last_used_at < func.now() - timedelta(minutes=1)),
        )
        .values(last_used_at=func.now())
    )


def ensure_workspace(session: Session, name: str) -> UUID:
    """The workspace of that name, made if it is new."""
    session.execute(insert(WorkspaceRow).values(name=name).on_conflict_do_nothing(index_elements=["name"]))
    return session.execute(select(WorkspaceRow.id).where(WorkspaceRow.name == name)).scalar_one()


def create_key(
    session: Session, *, workspace: str, name: str, scopes: list[str], lifetime: timedelta | None, secret_key: str
) -> tuple[ApiKeyRow, str]:
    """A new key's row and its text, which is known now and never again."""
    new = keys.generate(secret_key)
    row = ApiKeyRow(
        workspace_id=ensure_workspace(session, workspace),
        name=name,
        prefix=new.prefix,
        secret_hash=new.secret_hash,
        scopes=scopes,
        expires_at=session.execute(select(func.now() + lifetime)).scalar_one() if lifetime else None,
    )
    session.add(row)
    session.flush()
    session.add(without_key(row.workspace_id, Action.KEY_CREATED, row.id, prefix=row.prefix, scopes=scopes))
    return row, new.text


def list_keys(session: Session, workspace: str | None) -> list[tuple[ApiKeyRow, str]]:
    """Every key with the name of its workspace, the newest first."""
    statement = select(ApiKeyRow, WorkspaceRow.name).join(WorkspaceRow, WorkspaceRow.id == ApiKeyRow.workspace_id)
    if workspace is not None:
        statement = statement.where(WorkspaceRow.name == workspace)
    return [(row, name) for row, name in session.execute(statement.order_by(ApiKeyRow.id.desc()))]


def revoke_key(session: Session, prefix: str) -> bool:
    """Whether a live key bore that prefix; it does not open anything any more."""
    row = session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.prefix == prefix, ApiKeyRow.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKeyRow.id, ApiKeyRow.workspace_id)
    ).first()
    if row is None:
        return False
    session.add(without_key(row.workspace_id, Action.KEY_REVOKED, row.id, prefix=prefix))
    return True


def set_limits(
    session: Session, workspace: str, values: dict[str, int | None], action: Action = Action.LIMITS_CHANGED
) -> bool:
    """Whether there is such a workspace; None gives it back what holds for all."""
    changed = update(WorkspaceRow).where(WorkspaceRow.name == workspace).values(values).returning(WorkspaceRow.id)
    workspace_id = session.execute(changed).scalar_one_or_none()
    if workspace_id is None:
        return False
    session.add(without_key(workspace_id, action, workspace_id, **values))
    return True


def without_key(workspace_id: UUID, action: Action, object_id: UUID, **details: object) -> AuditRow:
    """The entry of what was done on the database itself, or by the service of its own accord."""
    return AuditRow(workspace_id=workspace_id, action=action, object_id=object_id, details=details)


def ensure_first_key(session: Session, secret_key: str) -> str | None:
    """The text of a key for the workspace `default`, if no key exists yet: how an embedded service begins."""
    if session.execute(select(ApiKeyRow.id).limit(1)).first() is not None:
        return None
    _, text = create_key(
        session, workspace="default", name="first", scopes=list(keys.SCOPES), lifetime=None, secret_key=secret_key
    )
    return text
