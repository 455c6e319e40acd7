"""What routes are given: the parts that the application holds, and of the database the caller's workspace.

Asynchronous although they wait for nothing: FastAPI would send each plain function through a thread, at every request.
"""

from typing import Annotated

from fastapi import Depends, Request

from app.access.dependencies import authenticate
from app.access.service import Caller
from app.blobs.open_uploads import OpenUploads
from app.config import Settings
from app.database import AsyncDatabase, WorkspaceDatabase
from app.queue import Queue
from app.storage import Storage


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _whole_database(request: Request) -> AsyncDatabase:
    database: AsyncDatabase = request.app.state.database
    return database


async def _database(
    database: Annotated[AsyncDatabase, Depends(_whole_database)], caller: Annotated[Caller, Depends(authenticate)]
) -> WorkspaceDatabase:
    return database.of_workspace(caller.workspace_id)


async def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


async def _queue(request: Request) -> Queue:
    queue: Queue = request.app.state.queue
    return queue


async def _open_uploads(request: Request) -> OpenUploads:
    open_uploads: OpenUploads = request.app.state.open_uploads
    return open_uploads


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[WorkspaceDatabase, Depends(_database)]
WholeDatabaseDep = Annotated[AsyncDatabase, Depends(_whole_database)]
StorageDep = Annotated[Storage, Depends(_storage)]
QueueDep = Annotated[Queue, Depends(_queue)]
OpenUploadsDep = Annotated[OpenUploads, Depends(_open_uploads)]
