"""Whose turn it is: workspaces take turns, and within one its priorities and then its age decide.

A wake-up names a job, and stands for any of the same queue: who takes it asks here which. So a workspace with a
thousand jobs gives way after each of them, and no wake-up is lost on a job that was taken on another's.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    Subquery,
    Text,
    and_,
    cast,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.selectable import LateralFromClause

from app.access.tables import WorkspaceRow
from app.jobs.routing import TRAINING_QUEUES
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow

# Of each workspace so many jobs are looked at: more workers than that do not ask at the same moment.
HEADS = 32
# Advisory locks of this kind: one a workspace, held by a claim that its limit on running jobs counts.
CLAIMS = 7_226
# What a worker with too few threads was woken for is called again after so long, and so many jobs of a queue at most:
# at once, and for all of them, messages would go round and round among small workers.
CALLED_AGAIN_SECONDS = 2.0
CALLED_AGAIN_JOBS = 8


def takeable(threads: int | None, can_train: bool) -> ColumnElement[bool]:
    """Jobs that are due, want no more than `threads`, where that is given, and train only if `can_train`."""
    return and_(
        JobRow.state == JobState.QUEUED,
        JobRow.due_at <= func.clock_timestamp(),
        JobRow.expires_at > func.clock_timestamp(),
        true() if threads is None else _wanted_threads() <= threads,
        true() if can_train else JobRow.queue.not_in(TRAINING_QUEUES),
    )


def _wanted_threads() -> ColumnElement[int]:
    return func.coalesce(JobRow.request["target"]["threads"].astext.cast(Integer), 1)


def held_back(default_running_jobs: int) -> ColumnElement[bool]:
    """Jobs of workspaces of which as many run as may. Inspections are never held back."""
    running = aliased(JobRow)
    most = (
        select(func.coalesce(WorkspaceRow.running_jobs, default_running_jobs))
        .where(WorkspaceRow.id == JobRow.workspace_id)
        .correlate(JobRow)
        .scalar_subquery()
    )
    now = (
        select(func.count())
        .where(
            running.workspace_id == JobRow.workspace_id,
            running.state == JobState.RUNNING,
            running.kind == JobKind.OPTIMIZE,
        )
        .correlate(JobRow)
        .scalar_subquery()
    )
    return and_(JobRow.kind == JobKind.OPTIMIZE, most > 0, now >= most)


def next_in_queue(
    session: Session, job_id: UUID, *, threads: int | None, can_train: bool, default_running_jobs: int
) -> UUID | None:
    """The job to claim on a wake-up for `job_id`, kept from others until this transaction ends; None: there is none.

    The workspace of which least runs in this queue comes first, of equal ones that which was served longest ago. Who
    asks at the same time gets the next one: a job counts as running for those behind it.
    """
    choice = _choice(job_id, takeable(threads, can_train), default_running_jobs)
    # Each time anew: of a workspace that was found full, the next look sees as many running as may.
    while (chosen := session.execute(choice).one_or_none()) is not None:
        counts = chosen.most and chosen.kind == JobKind.OPTIMIZE
        if not counts or _has_room(session, chosen.workspace_id, chosen.most):
            break
    return None if chosen is None else chosen.id


def _has_room(session: Session, workspace_id: UUID, most: int) -> bool:
    """Whether fewer run than may; if so, nobody else takes a job of this workspace before this transaction ends.

    Of claims from several queues at one moment, none sees what the others are about to take: so they go one by one.
    """
    attempt = session.begin_nested()
    session.execute(select(func.pg_advisory_xact_lock(CLAIMS, func.hashtext(cast(workspace_id, Text)))))
    running = select(func.count()).where(
        JobRow.workspace_id == workspace_id, JobRow.state == JobState.RUNNING, JobRow.kind == JobKind.OPTIMIZE
    )
    if session.execute(running).scalar_one() < most:
        attempt.commit()
        return True
    attempt.rollback()  # which lets go of the lock: who holds one must not wait for another's
    return False


def _choice(job_id: UUID, condition: ColumnElement[bool], default_running_jobs: int) -> Select[UUID, UUID, str, int]:
    """The job whose turn it is in the queue of `job_id`, with its workspace, its kind, and the limit that holds."""
    queue = select(JobRow.queue).where(JobRow.id == job_id).scalar_subquery()
    waiting, busy = _heads(queue, condition), _running(queue)
    most = func.coalesce(WorkspaceRow.running_jobs, default_running_jobs)
    room = or_(
        JobRow.kind != JobKind.OPTIMIZE, most == 0, func.coalesce(busy.c.optimizing, 0) + waiting.c.place <= most
    )
    return (
        select(JobRow.id, JobRow.workspace_id, JobRow.kind, most.label("most"))
        .select_from(WorkspaceRow)
        .join(waiting, true())
        .join(JobRow, JobRow.id == waiting.c.id)
        .outerjoin(busy, busy.c.workspace_id == WorkspaceRow.id)
        # Once more for rows that changed between being read and being locked.
        .where(JobRow.state == JobState.QUEUED, room)
        .order_by(func.coalesce(busy.c.in_queue, 0) + waiting.c.place, _served_at(queue).nulls_first(), JobRow.id)
        .limit(1)
        .with_for_update(of=JobRow, key_share=True, skip_locked=True)
    )


def call_again(
    session: Session, job_id: UUID, *, threads: int, republish_seconds: float, default_running_jobs: int
) -> None:
    """Have housekeeping wake somebody for what a wake-up for `job_id` found nothing to take of.

    That is the job itself, as soon as it is held back no longer; and what wants more than `threads`, soon: the wake-up
    was one of its queue's, and a larger worker may have been left without.
    """
    missed = update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.QUEUED, held_back(default_running_jobs))
    session.execute(missed.values(published_at=None).execution_options(synchronize_session=False))
    # As if it had been published so long ago that it is due again after CALLED_AGAIN_SECONDS.
    published_at = func.clock_timestamp() - literal(timedelta(seconds=republish_seconds - CALLED_AGAIN_SECONDS))
    too_large = (
        select(JobRow.id)
        .where(
            JobRow.queue == select(JobRow.queue).where(JobRow.id == job_id).scalar_subquery(),
            takeable(None, can_train=True),
            _wanted_threads() > threads,
            not_(held_back(default_running_jobs)),
        )
        .order_by(JobRow.priority, JobRow.id)
        .limit(CALLED_AGAIN_JOBS)
        .with_for_update(skip_locked=True)
    )
    again = update(JobRow).where(JobRow.id.in_(too_large), JobRow.published_at > published_at)
    session.execute(again.values(published_at=published_at).execution_options(synchronize_session=False))


def _heads(queue: ColumnElement[str], condition: ColumnElement[bool]) -> LateralFromClause:
    """Of each workspace the jobs that come first, with their places from 1."""
    order = (JobRow.priority, JobRow.id)
    return (
        select(JobRow.id, func.row_number().over(order_by=order).label("place"))
        .where(JobRow.workspace_id == WorkspaceRow.id, JobRow.queue == queue, condition)
        .order_by(*order)
        .limit(HEADS)
        .correlate(WorkspaceRow)
        .lateral()
    )


def _running(queue: ColumnElement[str]) -> Subquery:
    """Of each workspace what runs: in this queue, and of what the limit counts."""
    return (
        select(
            JobRow.workspace_id,
            func.count().filter(JobRow.queue == queue).label("in_queue"),
            func.count().filter(JobRow.kind == JobKind.OPTIMIZE).label("optimizing"),
        )
        .where(JobRow.state == JobState.RUNNING)
        .group_by(JobRow.workspace_id)
        .subquery()
    )


def _served_at(queue: ColumnElement[str]) -> ScalarSelect[datetime | None]:
    """When a job of the workspace was begun last in this queue."""
    began = aliased(JobRow)
    last = select(func.max(began.started_at)).where(began.workspace_id == WorkspaceRow.id, began.queue == queue)
    return last.correlate(WorkspaceRow).scalar_subquery()
