"""`/v1/datasets`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from app.access.dependencies import Reader, Writer
from app.blobs import uploads
from app.blobs.documentation import UPLOAD_ERRORS, upload_body, upload_replies
from app.blobs.uploads import NameFilter, StatusFilter, UploadName
from app.datasets.schemas import Dataset, show
from app.datasets.service import DATASETS
from app.dependencies import DatabaseDep, OpenUploadsDep, QueueDep, SettingsDep, StorageDep
from app.errors import InUse, InvalidCursor, NotFound
from app.paging import Cursor, Limit, Page
from app.problems import responses

router = APIRouter(prefix="/datasets", tags=["datasets"])

DatasetId = Annotated[UUID, Path(description="The dataset.")]


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    summary="Upload a dataset",
    operation_id="upload_dataset",
    responses=upload_replies("dataset", "Dataset", "delete_dataset") | responses(*UPLOAD_ERRORS),
    openapi_extra=upload_body(
        DATASETS.media_types,
        "A `.npz` or `.safetensors` file: one array per model input, by name, first axis = samples; labels beside.",
    ),
)
async def upload_dataset(
    request: Request,
    name: UploadName,
    caller: Writer,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    open_uploads: OpenUploadsDep,
    queue: QueueDep,
    background: BackgroundTasks,
    response: Response,
) -> Dataset:
    """Store a dataset and queue its inspection. The same bytes again give the same dataset, with 200."""
    accepted = await uploads.upload(
        DATASETS,
        request,
        caller=caller,
        name=name,
        database=database,
        storage=storage,
        settings=settings,
        open_uploads=open_uploads,
    )
    if accepted.job is not None:
        background.add_task(queue.wake_soon, accepted.job.id, accepted.job.queue, accepted.job.priority)
    response.status_code = 201 if accepted.created else 200
    response.headers["Location"] = f"/v1/datasets/{accepted.row.id}"
    return show(accepted.row)


@router.get(
    "",
    response_model=Page[Dataset],
    summary="List datasets",
    operation_id="list_datasets",
    responses=responses(InvalidCursor),
)
async def list_datasets(
    caller: Reader,
    database: DatabaseDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: StatusFilter = None,
    name: NameFilter = None,
) -> Page[Dataset]:
    """The workspace's datasets, newest first."""
    async with database.reading_scope() as session:
        rows, next_cursor = await uploads.list_page(
            session, DATASETS, caller.workspace_id, limit=limit, cursor=cursor, status=status, name=name
        )
    return Page(items=[show(row) for row in rows], next_cursor=next_cursor)


@router.get(
    "/{dataset_id}",
    response_model=Dataset,
    summary="Get a dataset",
    operation_id="get_dataset",
    responses=responses(NotFound),
)
async def get_dataset(dataset_id: DatasetId, caller: Reader, database: DatabaseDep) -> Dataset:
    """One dataset; ask again until its `status` is no longer `inspecting`."""
    async with database.reading_scope() as session:
        return show(await uploads.find(session, DATASETS, caller.workspace_id, dataset_id))


@router.delete(
    "/{dataset_id}",
    status_code=204,
    summary="Delete a dataset",
    operation_id="delete_dataset",
    responses=responses(NotFound, InUse),
)
async def delete_dataset(dataset_id: DatasetId, caller: Writer, database: DatabaseDep) -> None:
    """Delete a dataset that no queued or running job uses; its own inspection counts as one."""
    async with database.session_scope() as session:
        await uploads.delete(session, DATASETS, caller, dataset_id)
