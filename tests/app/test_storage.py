"""Storage: nothing partial, nothing lost, nobody held, errors that say what is wrong."""

import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from app.config import Settings
from app.errors import StorageFull, Unavailable
from app.storage import ContentMissing, Storage, open_store

MEBIBYTE = 1 << 20


async def chunks(count: int, fail_at: int | None = None) -> AsyncIterator[bytes]:
    for index in range(count):
        if index == fail_at:
            raise ValueError("the source broke")
        yield bytes([index % 256]) * MEBIBYTE


def keys(storage: Storage) -> list[str]:
    return [file.key for file in storage.list_sync("")]


async def read(storage: Storage, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in await storage.read(key, start, end)])


async def test_what_was_written_is_read_back_in_any_range(storage: Storage) -> None:
    await storage.write("blobs/w/b", chunks(20))
    whole = b"".join([chunk async for chunk in chunks(20)])
    assert await read(storage, "blobs/w/b", 0, 20 * MEBIBYTE) == whole
    assert (
        await read(storage, "blobs/w/b", 5 * MEBIBYTE - 3, 17 * MEBIBYTE + 1)
        == whole[5 * MEBIBYTE - 3 : 17 * MEBIBYTE + 1]
    )


@pytest.mark.parametrize("fail_at", [0, 1, 19], ids=["at once", "early", "late"])
async def test_a_source_that_breaks_leaves_nothing(storage: Storage, fail_at: int) -> None:
    with pytest.raises(ValueError, match="the source broke"):
        await storage.write("blobs/w/b", chunks(20, fail_at))
    assert keys(storage) == []


async def test_a_write_that_is_cancelled_leaves_nothing(storage: Storage) -> None:
    begun = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MEBIBYTE)
            begun.set()
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(storage.write, "blobs/w/b", endless())
        await begun.wait()
        group.cancel_scope.cancel()
    with anyio.fail_after(5):
        while keys(storage):  # noqa: ASYNC110 - obstore clears up in a thread of its own, and tells nobody
            await anyio.sleep(0.01)


def test_files_go_in_and_come_out(storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 50_000)
    storage.store(source, "blobs/w/b")
    storage.fetch("blobs/w/b", target)
    assert target.read_bytes() == source.read_bytes()
    [file] = storage.list_sync("blobs")
    assert (file.key, file.size_bytes) == ("blobs/w/b", 256 * 50_000)


async def test_what_is_not_there_is_named(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ContentMissing, match="blobs/w/b"):
        await storage.read("blobs/w/b", 0, 1)
    with pytest.raises(ContentMissing, match="blobs/w/b"):
        storage.fetch("blobs/w/b", tmp_path / "target")


async def test_deleting_twice_is_deleting_once(storage: Storage) -> None:
    await storage.write("blobs/w/b", chunks(1))
    await storage.delete("blobs/w/b")
    await storage.delete("blobs/w/b")
    assert keys(storage) == []


@pytest.mark.parametrize("url", ["http://bucket", "/plain/path", "file://elsewhere/folder", "s3:///prefix"])
def test_a_store_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="STORAGE_URL"):
        open_store(url)


@pytest.fixture
def silent_bucket(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A bucket behind a server that takes connections and says nothing."""
    monkeypatch.setattr("app.storage.SILENCE", timedelta(seconds=0.2))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield Storage(settings.model_copy(update={"storage_url": "s3://bucket"}))


async def test_a_bucket_that_goes_silent_holds_nobody(silent_bucket: Storage) -> None:
    with anyio.fail_after(30), pytest.raises(Unavailable):
        await silent_bucket.read("blobs/w/b", 0, 1)
    with anyio.fail_after(30), pytest.raises(Unavailable):
        await silent_bucket.write("blobs/w/b", chunks(1))


FILL_A_DISK = """
import anyio, sys
from app.config import Settings
from app.errors import StorageFull
from app.storage import Storage

async def chunks():
    for _ in range(32):
        yield bytes(1 << 20)

async def main():
    storage = Storage(Settings(
        database_url="postgresql://", redis_url="redis://", storage_url=sys.argv[1], embedded=True,
        api={"min_free_bytes": 0},
    ))
    try:
        await storage.write("blobs/w/b", chunks())
    except StorageFull as error:
        print(error.code, len(list(storage.list_sync(""))))

anyio.run(main)
"""


ASK_FOR_ROOM = """
import sys
from app.config import Settings
from app.errors import StorageFull
from app.storage import Storage

storage = Storage(Settings(
    database_url="postgresql://", redis_url="redis://", storage_url=sys.argv[1], embedded=True,
    api={"min_free_bytes": 0},
))
try:
    storage.ensure_room(0)
    print("room")
except StorageFull as error:
    print(error.detail)
"""


def on_a_disk(folder: Path, options: str, program: str) -> str:
    """What a program prints whose storage is a file system made with `options`, in a mount namespace of its own."""
    disk = folder / "disk"
    disk.mkdir()
    unshare = shutil.which("unshare")
    namespace = [unshare or "unshare", "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives out no mount namespaces")
    mount = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    command = ["sh", "-c", mount, "sh", options, str(disk), sys.executable, "-c", program, disk.as_uri()]
    result = subprocess.run([*namespace, *command], capture_output=True, text=True, check=False)
    assert result.stdout, result.stderr
    return result.stdout


def test_a_disk_that_fills_up_is_reported_as_that_and_left_clean(tmp_path: Path) -> None:
    assert on_a_disk(tmp_path, "size=8m", FILL_A_DISK).split() == ["storage_full", "0"]


@pytest.mark.parametrize(("options", "said"), [("nr_inodes=900", "more files"), ("nr_inodes=0", "room")])
def test_where_only_few_more_files_fit_there_is_no_room(tmp_path: Path, options: str, said: str) -> None:
    """A file system without a number of files, as `nr_inodes=0` makes, has room for any."""
    assert said in on_a_disk(tmp_path, f"size=8m,{options}", ASK_FOR_ROOM)


def test_the_reserve_is_kept_free(settings: Settings) -> None:
    settings.api.min_free_bytes = 1 << 60
    with pytest.raises(StorageFull, match="reserve"):
        Storage(settings).ensure_room(1)
