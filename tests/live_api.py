"""The API in a process of its own, under uvicorn as it is served, forked from one that has imported it already: a test
waits for 0.2 s in place of 3.
"""

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import uvicorn

from app.blobs import mark

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["app.main", "app.heads", "uvicorn", "uvicorn.main"])


class Descriptor:
    """A file descriptor of this process that a child is given."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, (reduction.DupFd(self._number),)


def _detached(duplicate: Any) -> int:
    """Its number in the child."""
    return int(duplicate.detach())


def _serve(environment: Mapping[str, str], output: int, errors: int, where: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    uvicorn.run("app.main:create_app", factory=True, http="app.heads:HttpProtocol", access_log=False, **where)


def serve(environment: Mapping[str, str], **where: Any) -> psutil.Process:
    """`where` it listens is an argument of uvicorn's. It writes where this process writes now."""
    process = FORKS.Process(target=_serve, args=(environment, Descriptor(1), Descriptor(2), where), daemon=True)
    process.start()
    return psutil.Process(process.pid)


@dataclass(frozen=True)
class LiveApi:
    """The API in a process of its own, on a Unix socket."""

    address: Path
    process: psutil.Process
    storage_folder: Path

    def client(self) -> httpx.Client:
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.address), verify=False), base_url="http://lathe", timeout=60
        )

    def stored_files(self) -> list[str]:
        return sorted(
            path.relative_to(self.storage_folder).as_posix()
            for path in self.storage_folder.rglob("*")
            if path.is_file() and path.name != mark.KEY
        )


class LiveApis(AbstractContextManager["LiveApis"]):
    """Those that one test starts; stopped together."""

    def __init__(self, environment: Mapping[str, str], storage_folder: Path) -> None:
        self._environment, self._storage_folder = environment, storage_folder
        self._started: list[LiveApi] = []
        # A socket's address has 107 characters, and the folder of a test may take more.
        self._folder = tempfile.TemporaryDirectory(prefix="lathe-")

    def start(self, **more: str) -> LiveApi:
        """One with `more` in its environment, once it listens."""
        address = Path(self._folder.name) / f"{len(self._started)}.sock"
        api = LiveApi(address, serve({**self._environment, **more}, uds=str(address)), self._storage_folder)
        self._started.append(api)
        _wait_for(api)
        return api

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for api in self._started:
            with suppress(psutil.NoSuchProcess):
                api.process.terminate()
        for api in self._started:
            api.process.wait(timeout=10)
        self._folder.cleanup()


def _wait_for(api: LiveApi) -> None:
    deadline = time.monotonic() + 30
    while api.process.is_running() and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(api.address)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"the API did not start; its process {'runs' if api.process.is_running() else 'has ended'}")
