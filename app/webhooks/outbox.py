"""The outbox: written by the transaction that ends a job, emptied by housekeeping, as often as it takes."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session, aliased
from uuid_utils.compat import uuid7

from app.jobs.states import JobKind
from app.jobs.tables import JobRow
from app.webhooks.tables import DeliveryRow, WebhookRow

# Of one workspace's messages on their way at a time: fewer than a courier has hands.
MOST_OF_ONE = 4
TEST = "webhook.test"
PROBLEM_CHARACTERS = 200
# As long as no message waits, however seldom it was tried: a receiver that hangs takes fewer than may come.
LONGEST_WAIT = timedelta(days=2)
WAITED_TOO_LONG = "Two days passed before its turn came."


@dataclass(frozen=True)
class Delivery:
    """One attempt at a message: the right to make it, for as long as the lease lasts."""

    id: UUID
    webhook_id: UUID
    url: str
    payload: dict[str, Any]
    attempt: int


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    status: int | None
    """Of the receiver's answer, where there was one."""
    problem: str | None
    """Why it failed; None of one that did not."""


def announce(session: Session, job_id: UUID) -> None:
    """A message to each webhook of the workspace about a job that this transaction has ended; none of inspections."""
    job = select(JobRow.workspace_id).where(JobRow.id == job_id, JobRow.kind == JobKind.OPTIMIZE).scalar_subquery()
    # Held, so that none is deleted before the rows that refer to it are written.
    held = select(WebhookRow.id).where(WebhookRow.workspace_id == job).with_for_update(read=True, key_share=True)
    webhook_ids = session.scalars(held).all()
    if webhook_ids:
        payload = _payload(session, job_id)
        rows = [{"id": uuid7(), "webhook_id": one, "job_id": job_id, "payload": payload} for one in webhook_ids]
        session.execute(insert(DeliveryRow), rows)


def _payload(session: Session, job_id: UUID) -> dict[str, Any]:
    """Small, and without a word of a user's: what is behind it is read with a key."""
    known = (JobRow.state, JobRow.finished_at, JobRow.verdict, JobRow.error)
    job = session.execute(select(*known).where(JobRow.id == job_id)).one()
    address = f"/v1/jobs/{job_id}"
    return {
        "type": f"job.{job.state}",
        "timestamp": job.finished_at.isoformat(),
        "data": {
            "job_id": str(job_id),
            "state": job.state,
            "verdict": (job.verdict or {}).get("outcome"),
            "error_code": (job.error or {}).get("code"),
            "links": {"job": address, "report": f"{address}/report", "events": f"{address}/events"},
        },
    }


def add_test(session: Session, webhook_id: UUID) -> DeliveryRow:
    """A message that says nothing but that messages arrive."""
    now = session.execute(select(func.now())).scalar_one()
    payload = {"type": TEST, "timestamp": now.isoformat(), "data": {"webhook_id": str(webhook_id)}}
    row = DeliveryRow(webhook_id=webhook_id, payload=payload)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def take(session: Session, lease_seconds: float) -> Delivery | None:
    """A message, with a lease on it: one at a time of each webhook, a few of each workspace.

    It is the one that waits longest of the workspaces with the fewest on their way. So receivers that are slow hold up
    their own messages, and take nobody else's turn.
    """
    ready = (DeliveryRow.state == "waiting", DeliveryRow.due_at <= func.clock_timestamp(), ~_leased(DeliveryRow))
    other = aliased(DeliveryRow)
    busy = exists().where(other.webhook_id == WebhookRow.id, other.state == "waiting", _leased(other))
    longest = select(func.min(DeliveryRow.due_at)).where(DeliveryRow.webhook_id == WebhookRow.id, *ready)
    sibling = aliased(WebhookRow)
    on_their_way = (
        select(func.count())
        .select_from(DeliveryRow)
        .join(sibling, sibling.id == DeliveryRow.webhook_id)
        .where(sibling.workspace_id == WebhookRow.workspace_id, DeliveryRow.state == "waiting", _leased(DeliveryRow))
        .scalar_subquery()
    )
    webhook = session.execute(
        select(WebhookRow.id, WebhookRow.url)
        .where(exists().where(DeliveryRow.webhook_id == WebhookRow.id, *ready), ~busy, on_their_way < MOST_OF_ONE)
        .order_by(on_their_way, longest.scalar_subquery())
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    ).one_or_none()
    if webhook is None:
        return None
    # Looked at again, now that the webhook is held: somebody may have taken one just before.
    of_webhook = select(DeliveryRow).join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
    first = of_webhook.where(WebhookRow.id == webhook.id, *ready, ~busy).order_by(DeliveryRow.due_at, DeliveryRow.id)
    row = session.scalars(first.limit(1).with_for_update(of=DeliveryRow)).one_or_none()
    if row is None:
        return None
    row.attempts += 1
    row.leased_until = func.clock_timestamp() + literal(timedelta(seconds=lease_seconds))
    row.attempted_at = func.clock_timestamp()
    session.flush()
    return Delivery(row.id, webhook.id, webhook.url, row.payload, row.attempts)


def _leased(row: Any) -> ColumnElement[bool]:
    return func.coalesce(row.leased_until > func.clock_timestamp(), False)


def record(
    session: Session, taken: Delivery, outcome: Outcome, *, backoff_seconds: float, max_attempts: int
) -> str | None:
    """What the message is now: `delivered`, `waiting` for its next attempt, or `given_up`.

    None where the attempt is not ours any more, or the webhook is gone: nothing was written.
    """
    values: dict[str, Any] = {"answer_status": outcome.status, "leased_until": None}
    if outcome.problem is None:
        values |= {"state": "delivered", "problem": None}
    else:
        wait = timedelta(seconds=wait_seconds(backoff_seconds, taken.attempt))
        values |= {"problem": outcome.problem[:PROBLEM_CHARACTERS], "due_at": func.clock_timestamp() + literal(wait)}
        values |= {"state": "given_up" if taken.attempt >= max_attempts else "waiting"}
    return session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id == taken.id, DeliveryRow.attempts == taken.attempt, DeliveryRow.state == "waiting")
        .values(values)
        .returning(DeliveryRow.state)
    ).scalar_one_or_none()


def wait_seconds(backoff_seconds: float, attempt: int) -> float:
    """Before the next attempt: doubled each time, and a quarter more or less, so that not all come back at once."""
    return backoff_seconds * 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - nothing is kept secret by it


def give_up_old(session: Session) -> int:
    """Give up what waited for too long and is not on its way: how many messages."""
    old = DeliveryRow.created_at < func.clock_timestamp() - literal(LONGEST_WAIT)
    problem = func.coalesce(DeliveryRow.problem, WAITED_TOO_LONG)
    given_up = session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.state == "waiting", ~_leased(DeliveryRow), old)
        .values(state="given_up", problem=problem)
        .returning(DeliveryRow.id)
    )
    return len(given_up.all())


def forget_old(session: Session, age_seconds: float) -> None:
    """Let go of messages that are over, and of what became of them."""
    over = or_(DeliveryRow.state == "delivered", DeliveryRow.state == "given_up")
    old = DeliveryRow.created_at < func.clock_timestamp() - literal(timedelta(seconds=age_seconds))
    session.execute(delete(DeliveryRow).where(over, old))
