"""Accepting a job: what can be known to be impossible is refused here, and only the commit means accepted."""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.blobs import quota
from app.config import Settings
from app.datasets.tables import DatasetRow
from app.errors import DatasetRejected, IdempotencyKeyReused, ModelRejected, NotFound, NotReady, ValidationFailed
from app.health.service import live_workers
from app.jobs.capacity import check_capacity
from app.jobs.fitness import check_fitness
from app.jobs.other_models import check_other_models
from app.jobs.quota import refuse_another
from app.jobs.routing import INSPECTION_QUEUE, queue_of
from app.jobs.states import JobKind
from app.jobs.subjects import SUBJECT
from app.jobs.tables import IdempotencyRow, JobDatasetRow, JobModelRow, JobRow
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest

PRIORITIES = {"high": 0, "normal": 1, "low": 2}

Row = TypeVar("Row", ModelRow, DatasetRow)


async def submit(
    session: AsyncSession,
    workspace_id: UUID,
    request: OptimizeRequest,
    idempotency_key: str | None,
    settings: Settings,
) -> tuple[JobRow, bool]:
    """The job, and whether it is new. Raises what makes the request impossible, naming the thing."""
    _refuse_nul(request)
    job_id = uuid7()
    if idempotency_key is not None:
        before = await _remember(session, workspace_id, idempotency_key, request, job_id)
        if before is not None:
            return before, False
    model = await _find_model(session, workspace_id, request.model_id, "model")
    others = {
        model_id: await _find_model(session, workspace_id, model_id, argument)
        for config in request.passes
        for argument, model_id in config.other_models().items()
    }
    datasets = {}
    for role, dataset_id in request.data.roles().items():
        datasets[role] = await _find(session, DatasetRow, workspace_id, dataset_id, f"{role} dataset")
        if datasets[role].status == "rejected":
            raise DatasetRejected(f"Dataset {dataset_id} was rejected: {(datasets[role].problem or {}).get('detail')}")
    request = check_fitness(request, model, datasets, settings)
    check_other_models(request, model, others, datasets)
    check_capacity(request, await live_workers(session))
    job = JobRow(
        id=job_id,
        workspace_id=workspace_id,
        kind=JobKind.OPTIMIZE,
        queue=queue_of(request),
        priority=PRIORITIES[request.priority],
        model_id=model.id,
        request=request.model_dump(mode="json", by_alias=True),
        budget_seconds=float(request.budget_seconds or settings.jobs.default_budget_seconds),
        max_attempts=settings.jobs.max_attempts,
        expires_at=await _expiry(session, settings),
    )
    await quota.refuse_without_room(session, workspace_id, settings.limits)
    await refuse_another(session, workspace_id, settings.limits)
    await _insert(session, job)
    session.add_all(JobDatasetRow(job_id=job_id, role=role, dataset_id=row.id) for role, row in datasets.items())
    session.add_all(JobModelRow(job_id=job_id, model_id=model_id) for model_id in others)
    await session.flush()
    return job, True


async def queue_inspection(
    session: AsyncSession,
    *,
    kind: JobKind,
    workspace_id: UUID,
    settings: Settings,
    model_id: UUID | None = None,
    dataset_id: UUID | None = None,
) -> JobRow:
    """The job that inspects an upload, within the transaction that accepts the upload."""
    job = JobRow(
        id=uuid7(),
        workspace_id=workspace_id,
        kind=kind,
        queue=INSPECTION_QUEUE,
        priority=PRIORITIES["high"],
        model_id=model_id,
        budget_seconds=settings.runner.inspect_seconds,
        max_attempts=settings.jobs.max_attempts,
        expires_at=await _expiry(session, settings),
    )
    await _insert(session, job)
    if dataset_id is not None:
        session.add(JobDatasetRow(job_id=job.id, role=SUBJECT, dataset_id=dataset_id))
        await session.flush()
    return job


def _refuse_nul(request: OptimizeRequest) -> None:
    if any("\0" in text for text in _strings(request.model_dump(mode="json"))):
        raise ValidationFailed("A name in the request holds the character NUL.", remedy="Leave it out.")


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, names of members among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from (name, *_strings(member))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


async def _insert(session: AsyncSession, job: JobRow) -> None:
    """Marked as published: the wake-up follows the commit, and housekeeping repeats it where it is lost."""
    job.published_at = (await session.execute(select(func.now()))).scalar_one()
    session.add(job)
    await session.flush()
    await session.refresh(job)


async def _expiry(session: AsyncSession, settings: Settings) -> object:
    wait = timedelta(seconds=settings.jobs.queue_ttl_seconds)
    return (await session.execute(select(func.now() + wait))).scalar_one()


def fingerprint_of(request: OptimizeRequest) -> bytes:
    """Which request came under an Idempotency-Key: the SHA-256, 32 bytes, of what it asks for beside the defaults.

    Without those, for keys outlive upgrades: a later release has other fields, and other defaults.
    """
    body = json.dumps(request.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(body.encode()).digest()


async def _remember(
    session: AsyncSession, workspace_id: UUID, key: str, request: OptimizeRequest, job_id: UUID
) -> JobRow | None:
    """The job accepted under this key before; None where the key is new, and now taken by `job_id`.

    A request that runs at the same time under the same key waits here for the other's commit.
    """
    fingerprint = fingerprint_of(request)
    inserted = await session.execute(
        insert(IdempotencyRow)
        .values(workspace_id=workspace_id, key=key, fingerprint=fingerprint, job_id=job_id)
        .on_conflict_do_nothing()
        .returning(IdempotencyRow.job_id)
    )
    if inserted.one_or_none() is not None:
        return None
    row = (
        await session.execute(
            select(IdempotencyRow).where(IdempotencyRow.workspace_id == workspace_id, IdempotencyRow.key == key)
        )
    ).scalar_one()
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"The key `{key}` was used for job {row.job_id}, with another body.",
            remedy="Use a new key for a new request.",
        )
    return (await session.execute(select(JobRow).where(JobRow.id == row.job_id))).scalar_one()


async def _find_model(session: AsyncSession, workspace_id: UUID, model_id: UUID, what: str) -> ModelRow:
    model = await _find(session, ModelRow, workspace_id, model_id, what)
    if model.status == "rejected":
        raise ModelRejected(f"The {what} {model.id} was rejected: {(model.problem or {}).get('detail')}")
    return model


async def _find(session: AsyncSession, table: type[Row], workspace_id: UUID, row_id: UUID, what: str) -> Row:
    """The upload, kept from being deleted until this transaction ends."""
    row = (
        await session.execute(
            select(table)
            .where(table.id == row_id, table.workspace_id == workspace_id, table.deleted_at.is_(None))
            .with_for_update(read=True, key_share=True)
        )
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no {what} {row_id}.")
    if row.status == "inspecting":
        raise NotReady(
            f"The {what} {row_id} is still being inspected.",
            remedy="Ask for it until its status is `ready`, then submit again.",
            headers={"Retry-After": "1"},
        )
    return row
