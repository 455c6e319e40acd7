"""`/v1/models`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from app.access.dependencies import Reader, Writer
from app.blobs import uploads
from app.blobs.content import Content, content_response, content_responses
from app.blobs.documentation import UPLOAD_ERRORS, upload_body, upload_replies
from app.blobs.uploads import NameFilter, StatusFilter, UploadName
from app.dependencies import DatabaseDep, OpenUploadsDep, QueueDep, SettingsDep, StorageDep
from app.errors import InUse, InvalidCursor, NotFound, RangeNotSatisfiable
from app.models.schemas import Model, show
from app.models.service import MODELS, TAR
from app.paging import Cursor, Limit, Page
from app.problems import responses
from app.storage import ContentMissing

router = APIRouter(prefix="/models", tags=["models"])

ModelId = Annotated[UUID, Path(description="The model.")]


@router.post(
    "",
    status_code=201,
    response_model=Model,
    summary="Upload a model",
    operation_id="upload_model",
    responses=upload_replies("model", "Model", "get_model_content", "delete_model") | responses(*UPLOAD_ERRORS),
    openapi_extra=upload_body(
        MODELS.media_types, "One ONNX file, or a tar of one ONNX file and its external-data files, not compressed."
    ),
)
async def upload_model(
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
) -> Model:
    """Store a model and queue its inspection. The same bytes again give the same model, with 200."""
    accepted = await uploads.upload(
        MODELS,
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
    response.headers["Location"] = f"/v1/models/{accepted.row.id}"
    return show(accepted.row)


@router.get(
    "",
    response_model=Page[Model],
    summary="List models",
    operation_id="list_models",
    responses=responses(InvalidCursor),
)
async def list_models(
    caller: Reader,
    database: DatabaseDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: StatusFilter = None,
    name: NameFilter = None,
) -> Page[Model]:
    """The workspace's models, newest first."""
    async with database.reading_scope() as session:
        rows, next_cursor = await uploads.list_page(
            session, MODELS, caller.workspace_id, limit=limit, cursor=cursor, status=status, name=name
        )
    return Page(items=[show(row) for row in rows], next_cursor=next_cursor)


@router.get(
    "/{model_id}",
    response_model=Model,
    summary="Get a model",
    operation_id="get_model",
    responses=responses(NotFound),
)
async def get_model(model_id: ModelId, caller: Reader, database: DatabaseDep) -> Model:
    """One model; ask again until its `status` is no longer `inspecting`."""
    async with database.reading_scope() as session:
        return show(await uploads.find(session, MODELS, caller.workspace_id, model_id))


@router.delete(
    "/{model_id}",
    status_code=204,
    summary="Delete a model",
    operation_id="delete_model",
    responses=responses(NotFound, InUse),
)
async def delete_model(model_id: ModelId, caller: Writer, database: DatabaseDep) -> None:
    """Delete a model that no queued or running job uses; its own inspection counts as one."""
    async with database.session_scope() as session:
        await uploads.delete(session, MODELS, caller, model_id)


@router.head("/{model_id}/content", include_in_schema=False)
@router.get(
    "/{model_id}/content",
    response_class=Response,
    summary="Download a model",
    operation_id="get_model_content",
    responses=content_responses(*MODELS.media_types) | responses(NotFound, RangeNotSatisfiable, ContentMissing),
)
async def get_model_content(
    model_id: ModelId, request: Request, caller: Reader, database: DatabaseDep, storage: StorageDep
) -> Response:
    """The original bytes, whatever inspection made of them; `Range`, `If-Range` and `If-None-Match` are honoured."""
    async with database.reading_scope() as session:
        row = await uploads.find(session, MODELS, caller.workspace_id, model_id)
        content = Content(
            workspace_id=row.workspace_id,
            blob_id=uploads.blob_of(row),
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            file_name=row.name if "." in row.name else row.name + (".tar" if row.media_type == TAR else ".onnx"),
            media_type=row.media_type,
        )
    return await content_response(request, storage, content)
