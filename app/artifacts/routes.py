"""`/v1/artifacts`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from app.access.dependencies import Reader, Writer
from app.artifacts import service
from app.artifacts.schemas import Artifact
from app.blobs.content import JSON, Content, content_response, content_responses
from app.dependencies import DatabaseDep, StorageDep
from app.errors import ArtifactPromoted, JobNotOver, NotFound, RangeNotSatisfiable
from app.problems import responses
from app.storage import ContentMissing

router = APIRouter(prefix="/artifacts", tags=["artifacts"])

# Models, and those with external data; manifests; pictures.
MEDIA_TYPES = ("application/octet-stream", "application/x-tar", JSON, "image/png", "image/svg+xml")
ArtifactId = Annotated[UUID, Path(description="The artifact.")]


@router.get(
    "/{artifact_id}",
    response_model=Artifact,
    summary="Get an artifact",
    operation_id="get_artifact",
    responses=responses(NotFound),
)
async def get_artifact(artifact_id: ArtifactId, caller: Reader, database: DatabaseDep) -> Artifact:
    """What there is to know of a delivered file; a finished job lists the ids."""
    async with database.reading_scope() as session:
        return service.show(await service.find(session, caller.workspace_id, artifact_id))


@router.delete(
    "/{artifact_id}",
    status_code=204,
    summary="Delete an artifact",
    operation_id="delete_artifact",
    responses=responses(NotFound, JobNotOver, ArtifactPromoted),
)
async def delete_artifact(artifact_id: ArtifactId, caller: Writer, database: DatabaseDep) -> None:
    """Delete a file that a job delivered, unless the job still runs or the file was promoted; the report stays."""
    async with database.session_scope() as session:
        await service.delete(session, caller, artifact_id)


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content",
    response_class=Response,
    summary="Download an artifact",
    operation_id="get_artifact_content",
    responses=content_responses(*MEDIA_TYPES) | responses(NotFound, RangeNotSatisfiable, ContentMissing),
)
async def get_artifact_content(
    artifact_id: ArtifactId, request: Request, caller: Reader, database: DatabaseDep, storage: StorageDep
) -> Response:
    """The file itself; `Range`, `If-Range` and `If-None-Match` are honoured."""
    async with database.reading_scope() as session:
        row = await service.find(session, caller.workspace_id, artifact_id)
    content = Content(
        workspace_id=row.workspace_id,
        blob_id=row.blob_id,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        file_name=row.file_name,
        media_type=row.media_type,
    )
    return await content_response(request, storage, content)
