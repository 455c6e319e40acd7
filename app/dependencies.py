"""What routes are given: the parts that the application holds.

Asynchronous although they wait for nothing: FastAPI would send each plain function through a thread, at every request.
"""

from typing import Annotated

from fastapi import Depends, Request

from app.config import Settings
from app.database import AsyncDatabase
from app.queue import Queue
from app.storage import Storage


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _database(request: Request) -> AsyncDatabase:
    database: AsyncDatabase = request.app.state.database
    return database


async def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


async def _queue(request: Request) -> Queue:
    queue: Queue = request.app.state.queue
    return queue


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[AsyncDatabase, Depends(_database)]
StorageDep = Annotated[Storage, Depends(_storage)]
QueueDep = Annotated[Queue, Depends(_queue)]
