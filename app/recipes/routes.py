"""`/v1/passes`."""

from collections.abc import Sequence

from fastapi import APIRouter

from app.access.dependencies import Reader
from app.dependencies import DatabaseDep
from app.health.service import live_workers
from app.health.tables import WorkerRow
from app.problems import responses
from app.recipes.catalogue import CATALOGUE, PassEntry
from app.recipes.schemas import PassDescription, Passes, PassNeeds

router = APIRouter(prefix="/passes", tags=["passes"])


@router.get("", response_model=Passes, summary="List passes", operation_id="list_passes", responses=responses())
async def list_passes(_: Reader, database: DatabaseDep) -> Passes:
    """Every optimization pass: what it does, what it needs, its arguments, and whether a live worker can run it."""
    async with database.reading_scope() as session:
        workers = await live_workers(session)
    return Passes(items=[_describe(entry, workers) for entry in CATALOGUE.values()])


def _describe(entry: PassEntry, workers: Sequence[WorkerRow]) -> PassDescription:
    reason = _unavailable_reason(entry, workers)
    return PassDescription(
        name=entry.name,
        summary=entry.summary,
        needs=PassNeeds(
            calibration_data=entry.needs_calibration,
            training_data=entry.needs_training_data,
            labels=entry.needs_labels,
            trainable_model=entry.needs_trainable_model,
            float32_weights=entry.needs_float32_weights,
            torch=entry.needs_torch,
            with_arguments={name: sorted(needs) for name, needs in entry.config.argument_needs.items()},
        ),
        comes_last=entry.comes_last,
        not_after=list(entry.not_after),
        devices=list(entry.devices),
        json_schema=entry.config.model_json_schema(),
        available=reason is None,
        unavailable_reason=reason,
    )


def _unavailable_reason(entry: PassEntry, workers: Sequence[WorkerRow]) -> str | None:
    if not workers:
        return "no live worker"
    if any(entry.name in worker.passes for worker in workers):
        return None
    return "no live worker can train" if entry.needs_torch else "no live worker offers this pass"
