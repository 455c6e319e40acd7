"""The Python client over a connection that breaks, against the API itself."""

import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select, update

from app.access.tables import WorkspaceRow
from app.client import Lathe, LatheApiError, LatheClientError, ServiceUnreachable
from app.database import Database
from app.models.tables import ModelRow
from app.uploads.tables import ResumableUploadRow
from tests.conftest import MakeKey

MEBIBYTE = 1 << 20
FROM_BYTES = MEBIBYTE


class BadLine:
    """A port that leads to the service, over connections that break after so many bytes of what the client sends."""

    def __init__(self, service_url: str) -> None:
        self.service = urlsplit(service_url).hostname, urlsplit(service_url).port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.breaks_after_bytes: list[int] = []
        self.carried_bytes = 0
        self.is_dead_behind_bytes: int | None = None
        """Once so many bytes were carried, nothing that is large gets through any more."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        budget = self.breaks_after_bytes.pop(0) if self.breaks_after_bytes else None
        with client, socket.create_connection(self.service) as service, contextlib.suppress(OSError):
            back = threading.Thread(target=self._carry_back, args=(service, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                dead = self.is_dead_behind_bytes is not None and self.carried_bytes > self.is_dead_behind_bytes
                if dead and len(data) > 4096:
                    break
                data = data if budget is None else data[:budget]
                service.sendall(data)
                self.carried_bytes += len(data)
                budget = None if budget is None else budget - len(data)
                if budget == 0:
                    break
            for end in (client, service):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _carry_back(service: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := service.recv(65536):
                client.sendall(data)


@pytest.fixture
def line(service_url: str) -> Iterator[BadLine]:
    bad = BadLine(service_url)
    yield bad
    bad.close()


@pytest.fixture
def lathe(line: BadLine, make_key: MakeKey) -> Iterator[Lathe]:
    with Lathe(line.url, make_key(), resumable_from_bytes=FROM_BYTES) as client:
        yield client


def uploads(database: Database) -> int:
    with database.session_scope() as session:
        return session.execute(select(func.count()).select_from(ResumableUploadRow)).scalar_one()


def test_a_large_file_goes_on_where_the_connection_broke(
    lathe: Lathe, line: BadLine, database: Database, tmp_path: Path
) -> None:
    drawn = random.Random(3)  # noqa: S311 - a test's choice
    content = drawn.randbytes(66 * MEBIBYTE)  # two requests, were the line good
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    line.breaks_after_bytes = [drawn.randrange(2000, 12 * MEBIBYTE) for _ in range(5)]
    seen: list[tuple[int, int]] = []
    model = lathe.upload_model(path, wait=False, on_progress=lambda done, total: seen.append((done, total)))
    assert (model.name, model.sha256) == ("net.onnx", hashlib.sha256(content).hexdigest())
    assert line.breaks_after_bytes == []
    # Beginning anew would have sent six times as much; what is on its way when a connection breaks is sent again.
    assert line.carried_bytes < 2 * len(content)
    assert seen[-1] == (len(content), len(content))
    assert uploads(database) == 1


@pytest.mark.parametrize(("size", "resumable"), [(FROM_BYTES - 1, 0), (FROM_BYTES, 1)], ids=["small", "large"])
def test_only_large_uploads_are_resumable(lathe: Lathe, database: Database, size: int, resumable: int) -> None:
    content = b"x" * size
    dataset = lathe.upload_dataset(content, name="cal", wait=False)
    assert (dataset.name, dataset.size_bytes, dataset.sha256) == ("cal", size, hashlib.sha256(content).hexdigest())
    assert uploads(database) == resumable


def test_a_line_on_which_nothing_arrives_any_more_ends_the_upload(
    lathe: Lathe, line: BadLine, database: Database
) -> None:
    line.is_dead_behind_bytes = 16 * MEBIBYTE
    content = random.Random(4).randbytes(32 * MEBIBYTE)  # noqa: S311 - a test's choice
    with pytest.raises(ServiceUnreachable):
        lathe.upload_model(content, wait=False)
    with database.session_scope() as session:
        assert session.execute(select(func.count()).select_from(ModelRow)).scalar_one() == 0
    assert line.carried_bytes > 16 * MEBIBYTE
    assert uploads(database) == 0, (
        "nobody knows its address any more, and what has arrived would fill the disk for a day"
    )


def test_an_upload_that_is_refused_on_its_way_is_deleted(lathe: Lathe, database: Database) -> None:
    begun: list[int] = []

    def fill_the_workspace(_: int, __: int) -> None:
        if begun:
            return
        begun.append(uploads(database))
        with database.session_scope() as session:
            session.execute(update(WorkspaceRow).values(stored_bytes=1))

    with pytest.raises(LatheApiError) as refused:
        lathe.upload_model(b"x" * FROM_BYTES, wait=False, on_progress=fill_the_workspace)
    assert refused.value.code == "storage_quota_exceeded"
    assert (begun, uploads(database)) == ([1], 0)


def test_another_request_that_makes_the_upload_whole_is_waited_for(lathe: Lathe, database: Database) -> None:
    content = b"x" * 3 * FROM_BYTES
    begun: list[int] = []

    def begin_to_finish(done: int, _: int) -> None:
        if not begun:  # one of three pieces is sent, so nothing can be whole
            with database.session_scope() as session:
                until = func.now() + timedelta(seconds=1)
                session.execute(update(ResumableUploadRow).values(finishing_until=until))
        begun.append(done)

    dataset = lathe.upload_dataset(content, name="cal", wait=False, on_progress=begin_to_finish)
    assert dataset.sha256 == hashlib.sha256(content).hexdigest()
    assert (begun.count(FROM_BYTES), begun[-1]) == (2, 3 * FROM_BYTES)


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_a_file_that_is_written_again_meanwhile_is_not_uploaded(
    lathe: Lathe, database: Database, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x" * 3 * FROM_BYTES)

    def write_again(_: int, __: int) -> None:
        written = path if how == "in place" else tmp_path / "net.new"
        written.write_bytes(b"y" * 3 * FROM_BYTES)
        written.rename(path)

    with pytest.raises(LatheClientError, match=r"net\.onnx was written to while it was uploaded"):
        lathe.upload_model(path, wait=False, on_progress=write_again)
    assert uploads(database) == 0


def test_a_refusal_is_told_and_nothing_is_sent(lathe: Lathe, line: BadLine) -> None:
    with pytest.raises(LatheApiError) as refused:
        lathe.upload_model(b"x" * FROM_BYTES, name="a\nname", wait=False)
    assert refused.value.code == "invalid_upload_metadata"
    assert line.carried_bytes < FROM_BYTES


def test_an_upload_that_was_deleted_meanwhile_says_so(lathe: Lathe, line: BadLine, database: Database) -> None:
    line.breaks_after_bytes = [MEBIBYTE]

    def delete(_: int, __: int) -> None:
        with database.session_scope() as session:
            session.query(ResumableUploadRow).delete()

    with pytest.raises(LatheApiError) as gone:
        lathe.upload_model(b"x" * 4 * MEBIBYTE, wait=False, on_progress=delete)
    assert (gone.value.code, gone.value.status) == ("not_found", 404)
