"""Bytes both ways, when the way is bad."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.client import DownloadCorrupt, Job, JobArtifact, LatheApiError, NothingDelivered
from app.client.transfer import CHUNK_BYTES, model_media_type
from tests.app.client.answers import JOB, JOB_ID, MODEL
from tests.app.client.conftest import Connect, Server

CONTENT = bytes(range(256)) * 8192  # 2 MiB
ARTIFACT = JobArtifact(
    id=UUID(int=3),
    kind="model",
    file_name="model.onnx",
    media_type="application/octet-stream",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


def serve_content(server: Server, stops: list[int], content: bytes = CONTENT) -> list[str]:
    """Ranges answered as asked, but each answer breaks off at the next of `stops`; the ranges that were asked for."""
    asked: list[str] = []

    @server.app.get("/v1/artifacts/{artifact_id}/content")
    def answer(artifact_id: UUID, request: Request) -> Response:
        wanted = request.headers.get("range", "")
        asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        end = stops.pop(0) if stops else len(content)

        def body() -> Iterator[bytes]:
            yield content[start:end]

        headers = {"Content-Length": str(len(content) - start)}
        return StreamingResponse(body(), 206 if wanted else 200, headers)

    return asked


def test_a_download_that_breaks_off_is_continued(server: Server, connect: Connect, tmp_path: Path) -> None:
    first, second = CHUNK_BYTES // 2, CHUNK_BYTES + 5
    asked = serve_content(server, [first, second])
    seen: list[tuple[int, int]] = []

    saved = connect().download(ARTIFACT, tmp_path, on_progress=lambda done, total: seen.append((done, total)))

    assert saved == tmp_path / "model.onnx"
    assert saved.read_bytes() == CONTENT
    assert asked == ["", f"bytes={first}-", f"bytes={second}-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_an_earlier_process_left_is_continued(server: Server, connect: Connect, tmp_path: Path) -> None:
    asked = serve_content(server, [])
    (tmp_path / f".model.onnx.{ARTIFACT.sha256[:16]}.part").write_bytes(CONTENT[:1000])
    assert connect().download(ARTIFACT, tmp_path / "model.onnx").read_bytes() == CONTENT
    assert asked == ["bytes=1000-"]


def test_two_downloads_to_one_path_leave_each_other_alone(server: Server, connect: Connect, tmp_path: Path) -> None:
    half = len(CONTENT) // 2
    serve_content(server, [half])
    lathe = connect()
    destination = tmp_path / "model.onnx"
    others: list[Path] = []

    def download_again(done: int, _: int) -> None:
        if done >= half and not others:
            others.append(destination)
            lathe.download(ARTIFACT, destination)
            assert destination.read_bytes() == CONTENT

    lathe.download(ARTIFACT, destination, on_progress=download_again)
    assert others == [destination]
    assert destination.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_download_that_is_refused_leaves_nothing(server: Server, connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(LatheApiError, match="answered 404"):
        connect().download(ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(CONTENT[:-1] + b"!", id="other bytes"),
        pytest.param(CONTENT + b"!", id="too many bytes"),
        pytest.param(CONTENT[:-1], id="too few bytes"),
    ],
)
def test_wrong_bytes_never_reach_the_destination(
    server: Server, connect: Connect, tmp_path: Path, content: bytes
) -> None:
    serve_content(server, [], content)
    destination = tmp_path / "model.onnx"
    destination.write_bytes(b"what was there before")
    with pytest.raises(DownloadCorrupt, match="sha256"):
        connect().download(ARTIFACT, destination)
    assert destination.read_bytes() == b"what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_download_over_a_link_leaves_the_link(server: Server, connect: Connect, tmp_path: Path) -> None:
    serve_content(server, [])
    target, link = tmp_path / "models" / "v7.onnx", tmp_path / "latest.onnx"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert connect().download(ARTIFACT, link) == link
    assert link.is_symlink()
    assert target.read_bytes() == CONTENT


def test_a_pipe_is_neither_replaced_nor_uploaded(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    lathe = connect()
    for refused in (
        lambda: lathe.download(ARTIFACT, path),
        lambda: lathe.upload_model(path),
        lambda: lathe.upload_dataset(path),
    ):
        with pytest.raises(OSError, match="is no regular file") as caught:
            refused()
        assert caught.value.filename == str(path)
    assert path.is_fifo()


def test_a_job_that_is_over_is_downloaded_as_its_optimized_model(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    serve_content(server, [])
    manifest = {**ARTIFACT.model_dump(), "id": UUID(int=4), "kind": "manifest", "file_name": "manifest.json"}
    job = Job.model_validate({**JOB, "state": "succeeded", "artifacts": [manifest, ARTIFACT.model_dump()]})
    saved = connect().download(job, tmp_path / "smaller.onnx")
    assert saved.read_bytes() == CONTENT


def test_a_job_tells_its_files_by_kind() -> None:
    compiled = {**ARTIFACT.model_dump(), "id": UUID(int=5), "kind": "ort", "file_name": "model.ort"}
    job = Job.model_validate({**JOB, "state": "succeeded", "artifacts": [ARTIFACT.model_dump(), compiled]})
    assert job.delivered("ort").file_name == "model.ort"
    assert job.delivered() == ARTIFACT
    with pytest.raises(NothingDelivered, match="no manifest"):
        job.delivered("manifest")


FIGURES = {"size_bytes": 1, "latency_ms": 1, "throughput_per_second": 1, "peak_memory_bytes": 1, "metric": None}
SUMMARY = {"metric": "top1", "baseline": FIGURES, "optimized": FIGURES, "ratio": {}}


@pytest.mark.parametrize(
    ("summary", "promoted", "file_name"),
    [
        pytest.param({"file_name": "model.onnx"}, None, "model.onnx", id="the delivered one"),
        pytest.param({"file_name": "model.onnx"}, UUID(int=6), "second.onnx", id="the promoted one"),
        pytest.param({"file_name": "deleted.onnx"}, UUID(int=6), "second.onnx", id="promoted before it was deleted"),
        pytest.param({}, None, "model.onnx", id="of an earlier release"),
    ],
)
def test_a_job_is_stood_for_by_the_model_that_its_summary_is_about(
    summary: dict[str, str], promoted: UUID | None, file_name: str
) -> None:
    models = [ARTIFACT, ARTIFACT.model_copy(update={"id": UUID(int=6), "file_name": "second.onnx"})]
    fields = {"state": "succeeded", "summary": SUMMARY | summary, "promoted_artifact_id": promoted, "artifacts": models}
    assert Job.model_validate(JOB | fields).delivered().file_name == file_name


def test_once_the_delivered_model_is_deleted_none_is_taken_for_it(connect: Connect, tmp_path: Path) -> None:
    """The summary, the verdict and the report are not about any other."""
    fields = {"state": "succeeded", "summary": SUMMARY | {"file_name": "deleted.onnx"}, "artifacts": [ARTIFACT]}
    job = Job.model_validate(JOB | fields)
    assert job.optimized is None
    with pytest.raises(NothingDelivered, match=rf"was deleted.* `model\.onnx` \(artifact {ARTIFACT.id}\)"):
        connect().download(job, tmp_path)


FAULT = {"code": "out_of_budget", "title": "-", "detail": "The time was up."}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"state": "running"}, "wait for it", id="not over"),
        pytest.param({"state": "failed", "error": FAULT}, "The time was up. .out_of_budget.", id="failed"),
        pytest.param({"state": "cancelled"}, "cancelled and has delivered no model", id="cancelled"),
    ],
)
def test_a_job_without_a_model_says_why_there_is_none(
    connect: Connect, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(NothingDelivered, match=message):
        connect().download(Job.model_validate({**JOB, **fields}), tmp_path)


def test_nothing_cannot_be_downloaded(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(NothingDelivered, match="delivered no model"):
        connect().download(None, tmp_path)


def test_an_upload_is_sent_whole_again_after_a_failure(server: Server, connect: Connect, tmp_path: Path) -> None:
    bodies: list[bytes] = []
    types: list[str] = []

    @server.app.post("/v1/models")
    async def upload(name: str, request: Request) -> Response:
        bodies.append(await request.body())
        types.append(request.headers["content-type"])
        if len(bodies) == 1:
            return Response(status_code=503, headers={"Retry-After": "0"})
        return JSONResponse({**MODEL, "name": name}, 201)

    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT)
    assert connect().upload_model(path).name == "net.onnx"
    assert bodies == [CONTENT, CONTENT]
    assert types == ["application/octet-stream"] * 2


def test_an_upload_that_took_longer_than_retries_may_is_sent_again(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    @server.app.post("/v1/models")
    async def upload(name: str, request: Request) -> Response:
        bodies.append(await request.body())
        if len(bodies) == 1:
            await asyncio.sleep(0.3)
            return Response(status_code=502)
        return JSONResponse({**MODEL, "name": name}, 201)

    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT)
    assert connect(retry_seconds=0.2).upload_model(path).name == "net.onnx"
    assert bodies == [CONTENT, CONTENT]


def test_a_file_name_that_is_not_utf8_is_sent_with_question_marks(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    @server.app.post("/v1/models")
    def upload(name: str) -> Response:
        return JSONResponse({**MODEL, "name": name}, 201)

    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    path.write_bytes(CONTENT[:10])
    assert connect().upload_model(path).name == "m?.onnx"


def test_a_tar_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("net.onnx"), io.BytesIO())
    assert model_media_type(path) == "application/x-tar"
    assert model_media_type(path.read_bytes()) == "application/x-tar"
    assert model_media_type(b"\x08\x07") == "application/octet-stream"


def test_events_are_taken_up_after_the_last_one_where_the_stream_breaks(server: Server, connect: Connect) -> None:
    resumed_after: list[str] = []

    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: UUID, request: Request) -> Response:
        resumed_after.append(request.headers["last-event-id"])
        last = int(resumed_after[-1])

        def body() -> Iterator[str]:
            yield ": ping\n\n"
            for number in (last + 1, last + 2):
                event = f'{{"id": {number}, "type": "log", "at": "2026-01-01T00:00:00Z", "data": {{"n": {number}}}}}'
                yield f"id: {number}\nevent: log\ndata: {event}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return JSONResponse({**JOB, "state": "running" if len(resumed_after) < 2 else "succeeded"})

    assert [event.data["n"] for event in connect().events(JOB_ID)] == [1, 2, 3, 4]
    assert resumed_after == ["0", "2"]
