"""`/v1/uploads`: tus 1.0. Every answer bears `Tus-Resumable`."""

from datetime import UTC
from email.utils import format_datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Request, Response

from app.access.dependencies import Writer
from app.blobs.documentation import UPLOAD_ERRORS
from app.blobs.receiving import DigestMismatch
from app.dependencies import DatabaseDep, OpenUploadsDep, QueueDep, SettingsDep, StorageDep
from app.errors import LatheError, NotFound, TooManyResumableUploads, UnsupportedMediaType
from app.headers import described
from app.problems import responses
from app.queue import Queue
from app.storage import ContentMissing
from app.uploads.protocol import (
    ALGORITHMS,
    EXTENSIONS,
    OFFSET_OCTETS,
    PATH,
    VERSION,
    ChecksumMismatch,
    InvalidUploadMetadata,
    UnsupportedChecksum,
    UnsupportedTusVersion,
    read_checksum,
    speak_tus,
)
from app.uploads.service import (
    Appended,
    OffsetConflict,
    ResumableUploads,
    TooManyParts,
    UploadBeingFinished,
    UploadExpired,
    UploadOverrun,
)
from app.uploads.tables import ResumableUploadRow

router = APIRouter(prefix="/uploads", tags=["uploads"])

UploadId = Annotated[UUID, Path(description="The upload.")]
ChecksumHeader = Annotated[
    str | None,
    Header(
        alias="Upload-Checksum",
        description="`sha1 <base64>` or `sha256 <base64>` of the body: other bytes are not kept.",
    ),
]
APPENDING: tuple[type[LatheError], ...] = (
    *(error for error in UPLOAD_ERRORS if error is not DigestMismatch),
    UnsupportedTusVersion,
    UnsupportedChecksum,
    ChecksumMismatch,
)


async def _uploads(
    caller: Writer,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    open_uploads: OpenUploadsDep,
) -> ResumableUploads:
    return ResumableUploads(caller, database, storage, settings, open_uploads)


UploadsDep = Annotated[ResumableUploads, Depends(_uploads)]


def _body(required: bool) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary", "description": "Bytes of the file, from the offset on."}
    return {"requestBody": {"required": required, "content": {OFFSET_OCTETS: {"schema": schema}}}}


def _brings_bytes(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == OFFSET_OCTETS


def _success(status: int, description: str, *headers: str) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": description, "headers": described(*headers)}}


def _stands(row: ResumableUploadRow) -> dict[str, str]:
    """What headers say of an upload."""
    found = {"Upload-Offset": str(row.offset_bytes), "Cache-Control": "no-store"}
    if row.accepted_id is None:
        return found | {"Upload-Expires": format_datetime(row.expires_at.astimezone(UTC), usegmt=True)}
    return found | {"Upload-Result": f"/v1/{row.kind}s/{row.accepted_id}"}


@router.options(
    "",
    status_code=204,
    summary="Ask what resumable uploads can do",
    operation_id="get_upload_options",
    responses=_success(
        204,
        "Versions, extensions and the largest size.",
        "Tus-Version",
        "Tus-Extension",
        "Tus-Max-Size",
        "Tus-Checksum-Algorithm",
    )
    | responses(),
)
async def get_upload_options(_: Writer, settings: SettingsDep) -> Response:
    """Resumable uploads are tus 1.0 (https://tus.io): this says which parts of it, and how large they may be."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": VERSION,
            "Tus-Extension": ",".join(EXTENSIONS),
            "Tus-Max-Size": str(settings.api.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


@router.post(
    "",
    status_code=201,
    response_class=Response,
    summary="Begin a resumable upload",
    operation_id="create_upload",
    responses=_success(
        201, "The upload can be sent to `Location`.", "Location", "Upload-Offset", "Upload-Expires", "Upload-Result"
    )
    | responses(*APPENDING, InvalidUploadMetadata, UploadOverrun, TooManyParts, TooManyResumableUploads),
    openapi_extra=_body(required=False),
)
async def create_upload(
    request: Request,
    uploads: UploadsDep,
    _: Annotated[None, Depends(speak_tus)],
    queue: QueueDep,
    background: BackgroundTasks,
    length: Annotated[int, Header(alias="Upload-Length", ge=0, description="How many bytes the upload will have.")],
    metadata: Annotated[
        str,
        Header(
            alias="Upload-Metadata",
            max_length=4096,
            description="`key <base64>,...`: `kind` (`model` or `dataset`), `name` or `filename`, and, where it is not "
            "`application/octet-stream`, `filetype`: the Content-Type that an ordinary upload of it would have.",
        ),
    ] = "",
    checksum: ChecksumHeader = None,
) -> Response:
    """Begin an upload that may break off and be gone on with; a body of the right type brings its first bytes.

    Once it is whole it is a model or a dataset as if it had been sent in one piece, and `Upload-Result` names it. Until
    then it takes twice its size of local storage, and is answered 507 where there is less. Who gives one up deletes it:
    what has arrived would lie there until it expires.
    """
    row = await uploads.create(length, metadata)
    appended = Appended(row)
    if _brings_bytes(request):
        try:
            appended = await uploads.append(row, request, 0, read_checksum(checksum))
        except LatheError:
            await uploads.terminate(row.id)  # its address was never told
            raise
    _wake(queue, background, appended)
    headers = _stands(appended.row) | {"Location": f"{PATH}/{row.id}"}
    return Response(status_code=201, headers=headers)


@router.head(
    "/{upload_id}",
    status_code=200,
    response_class=Response,
    summary="Ask how a resumable upload stands",
    operation_id="get_upload",
    responses=_success(
        200,
        "How many bytes are there, of how many.",
        "Upload-Offset",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Expires",
        "Upload-Result",
    )
    | responses(NotFound, UploadExpired, UnsupportedTusVersion),
)
async def get_upload(upload_id: UploadId, uploads: UploadsDep, _: Annotated[None, Depends(speak_tus)]) -> Response:
    """What a client asks that was interrupted, before it goes on from `Upload-Offset`."""
    row = await uploads.find(upload_id)
    headers = _stands(row) | {"Upload-Length": str(row.size_bytes), "Upload-Metadata": row.metadata_text}
    return Response(status_code=200, headers=headers)


@router.patch(
    "/{upload_id}",
    status_code=204,
    summary="Go on with a resumable upload",
    operation_id="append_to_upload",
    responses=_success(204, "The bytes are kept, durably.", "Upload-Offset", "Upload-Expires", "Upload-Result")
    | responses(
        *APPENDING,
        NotFound,
        ContentMissing,
        UploadExpired,
        OffsetConflict,
        UploadBeingFinished,
        UploadOverrun,
        TooManyParts,
    ),
    openapi_extra=_body(required=True),
)
async def append_to_upload(
    upload_id: UploadId,
    request: Request,
    uploads: UploadsDep,
    _: Annotated[None, Depends(speak_tus)],
    queue: QueueDep,
    background: BackgroundTasks,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0, description="Where the body's bytes begin.")],
    checksum: ChecksumHeader = None,
) -> Response:
    """Send more bytes, as many as you like. Where the request breaks off, what was received of it is kept.

    Where two send at one offset, one of them is answered 409, and none of his bytes are kept: at once, where both
    bring the last ones. The request that makes
    the upload whole is answered once its model or dataset is there.
    """
    said = request.headers.get("content-type", "")
    if not _brings_bytes(request):
        raise UnsupportedMediaType(
            f"The bytes of an upload cannot be sent as `{said[:100]}`.", remedy=f"Send `Content-Type: {OFFSET_OCTETS}`."
        )
    row = await uploads.find(upload_id)
    appended = await uploads.append(row, request, offset, read_checksum(checksum))
    _wake(queue, background, appended)
    return Response(status_code=204, headers=_stands(appended.row))


@router.delete(
    "/{upload_id}",
    status_code=204,
    summary="Give up a resumable upload",
    operation_id="delete_upload",
    responses=responses(NotFound, UnsupportedTusVersion),
)
async def delete_upload(upload_id: UploadId, uploads: UploadsDep, _: Annotated[None, Depends(speak_tus)]) -> None:
    """Delete an upload and the bytes that have come of it. What a whole one became is not deleted."""
    await uploads.terminate(upload_id)


def _wake(queue: Queue, background: BackgroundTasks, appended: Appended) -> None:
    if appended.job is not None:
        background.add_task(queue.wake_soon, appended.job.id, appended.job.queue, appended.job.priority)
