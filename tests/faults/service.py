"""A running service, as a client and as an operator see it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import httpx
import psutil
from pydantic import SecretStr
from sqlalchemy import select

from app.blobs import mark
from app.blobs.tables import BlobRow, storage_key
from app.client.transport import own_connections
from app.config import Settings
from app.database import Database
from app.embedded import Stack
from app.jobs.search_cache import piece_key
from app.jobs.tables import SearchCacheRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.worker import networks

PATIENCE_SECONDS = 90.0


class Service:
    """A running stack, as a client and as an operator see it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = httpx.Client(
            base_url=stack.url,
            headers={"Authorization": f"Bearer {stack.key}"},
            timeout=30,
            **own_connections(stack.url),
        )
        self.storage_folder = Path(unquote(urlsplit(stack.environment["STORAGE_URL"]).path))
        self.work_folder = Path(stack.environment["LATHE_WORK_FOLDER"])

    def upload(self) -> str:
        content = networks.convnet().SerializeToString()
        headers = {"Content-Type": "application/octet-stream"}
        model: dict[str, Any] = self.client.post("/v1/models?name=net", content=content, headers=headers).json()
        self.wait(lambda: self.client.get(f"/v1/models/{model['id']}").json()["status"] == "ready")
        return str(model["id"])

    def submit(self, model_id: str) -> str:
        body = {"model_id": model_id, "recipe": [{"pass": "optimize_graph"}], "budget_seconds": 8}
        answer = self.client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return job

    def restart_redis(self) -> None:
        """Kill Redis and start it anew; what it held is lost."""
        self.stack.services.redis.kill()
        self.stack.services.redis.start()

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)

    def wait_running(self, job_id: str) -> list[psutil.Process]:
        """The processes of the job's runner, as soon as it measures."""
        self.wait(lambda: self.job(job_id)["phase"] in {"baseline", "evaluating"})
        return self.runners()

    def runners(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.work_folder) in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def assert_nothing_left_over(self) -> None:
        """No process, no folder, and in storage each file that a row names and none beside, as soon as garbage is gone.

        A process that is killed between writing a file and naming it leaves one that no row names: housekeeping
        removes those, and here it need not wait for the grace, as nobody writes any more.
        """
        self.wait(lambda: not self.runners() and not list(self.work_folder.glob("[!.]*")))
        settings = Settings(
            database_url=SecretStr(self.stack.environment["DATABASE_URL"]),
            redis_url=SecretStr("unused"),
            storage_url=self.stack.environment["STORAGE_URL"],
            embedded=True,
        )
        database = Database(settings)
        collect_garbage(database, Storage(settings), grace_seconds=0)
        with database.session_scope() as session:
            rows = {
                storage_key(UUID(str(workspace)), UUID(str(blob)))
                for workspace, blob in session.execute(select(BlobRow.workspace_id, BlobRow.id))
            }
            rows |= {piece_key(file) for file in session.scalars(select(SearchCacheRow.file_id))}
        database.dispose()
        files = {
            path.relative_to(self.storage_folder).as_posix()
            for path in self.storage_folder.rglob("*")
            if path.is_file()
        }
        assert files == rows | {mark.KEY}
