"""What the client sends, and what it makes of answers."""

import socket
import subprocess
import sys
from importlib.util import find_spec
from uuid import UUID

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from app.client import Lathe, LatheApiError, NotConfigured, NothingDelivered, ServiceUnreachable
from app.client.errors import LatheClientError
from app.errors import InUse
from tests.app.client.answers import JOB, JOB_ID, MODEL, refusal
from tests.app.client.conftest import Connect, Server


def test_a_problem_document_becomes_an_error_with_its_fields(server: Server, connect: Connect) -> None:
    @server.app.delete("/v1/models/{model_id}")
    def delete(model_id: UUID) -> Response:
        return refusal(InUse(f"Job 5 uses the model {model_id}.", remedy="Wait for it to end."))

    with pytest.raises(LatheApiError) as caught:
        connect().delete_model(JOB_ID)

    error = caught.value
    assert (error.status, error.code, error.title) == (409, "in_use", "A job still uses this")
    assert error.detail == f"Job 5 uses the model {JOB_ID}."
    assert error.remedy == "Wait for it to end."
    assert "in_use" in str(error)


def test_an_answer_that_is_not_lathes_is_named_as_such(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return Response("<html>Bad hair day</html>", 418, media_type="text/html")

    with pytest.raises(LatheApiError, match="answered 418") as caught:
        connect().job(JOB_ID)
    assert caught.value.code == "unexpected_answer"


def test_a_redirect_is_not_followed_with_the_key(server: Server, connect: Connect) -> None:
    asked: list[str] = []

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return Response(status_code=307, headers={"Location": "/elsewhere"})

    @server.app.get("/elsewhere")
    def elsewhere(request: Request) -> None:
        asked.append(request.headers["authorization"])

    with pytest.raises(LatheApiError, match="answered 307"):
        connect().job(JOB_ID)
    assert asked == []


def test_a_page_where_an_answer_should_be_is_named_as_such(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return Response("<html>Welcome to nginx!</html>", media_type="text/html")

    with pytest.raises(LatheApiError, match="Check the URL") as caught:
        connect().job(JOB_ID)
    assert caught.value.code == "unexpected_answer"


def test_nobody_there_is_an_error_of_its_own() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Lathe(url, "lth_test", retry_seconds=0.2) as lathe, pytest.raises(ServiceUnreachable, match=url):
            lathe.job(JOB_ID)


@pytest.mark.parametrize("url", ["localhost:8000", "http://[::1", "ftp://localhost"])
def test_a_url_that_cannot_be_used_is_said_at_once(url: str) -> None:
    with pytest.raises(NotConfigured, match="cannot be used"), Lathe(url, "lth_test") as lathe:
        lathe.job(JOB_ID)


@pytest.mark.skipif(find_spec("socksio") is not None, reason="says what happens where socksio is not installed")
def test_a_proxy_that_needs_a_package_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(NotConfigured, match="socksio"):
        Lathe("http://lathe.example", "lth_test")


def test_a_line_end_behind_a_key_is_not_sent(server: Server) -> None:
    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID, request: Request) -> Response:
        return JSONResponse({**MODEL, "name": request.headers["authorization"]})

    with Lathe(server.start(), "lth_test\r\n") as lathe:
        assert lathe.model(MODEL["id"]).name == "Bearer lth_test"


@pytest.mark.parametrize("key", ["lth_any\r\nX-Other: 1", "lth_a\x00ny", "lth_\u00e4ny", " \n"])
def test_a_key_that_no_header_may_have_is_refused_at_once_and_not_repeated(key: str) -> None:
    with pytest.raises(NotConfigured, match="no header may have") as caught:
        Lathe("http://127.0.0.1:1", key)
    assert "lth_" not in str(caught.value)


def test_a_request_that_cannot_be_sent_is_no_outage(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return JSONResponse(MODEL)

    with pytest.raises(LatheClientError, match="cannot be sent: Illegal header value"):
        connect().optimize(MODEL["id"], "optimize_graph", idempotency_key="mine\n")


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATHE_KEY", raising=False)
    with pytest.raises(NotConfigured, match="LATHE_KEY"):
        Lathe("http://127.0.0.1:1")
    monkeypatch.setenv("LATHE_KEY", "lth_test")
    monkeypatch.setenv("LATHE_URL", "http://127.0.0.1:1")
    with Lathe() as lathe:
        assert lathe.url == "http://127.0.0.1:1"


def test_a_list_is_fetched_page_by_page(server: Server, connect: Connect) -> None:
    pages = {None: ([1, 2], "b"), "b": ([3], "c"), "c": ([], None)}
    fetched: list[str | None] = []

    @server.app.get("/v1/models")
    def models(limit: int, cursor: str | None = None) -> Response:
        fetched.append(cursor)
        ids, following = pages[cursor]
        items = [{**MODEL, "id": str(UUID(int=number))} for number in ids]
        return JSONResponse({"items": items, "next_cursor": following})

    models_ = connect().models()
    assert next(models_).id == UUID(int=1)
    assert fetched == [None]
    assert [model.id.int for model in models_] == [2, 3]
    assert fetched == [None, "b", "c"]


def test_importing_the_client_imports_no_server_and_no_model_library() -> None:
    heavy = {"sqlalchemy", "celery", "fastapi", "numpy", "torch", "onnx"}
    code = f"import sys, app.client; sys.exit(', '.join({heavy!r} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_promoted_by_its_file_name_or_id(server: Server, connect: Connect) -> None:
    best, other = (
        {
            "id": str(UUID(int=number)),
            "kind": "model",
            "file_name": f"{number}.onnx",
            "media_type": "application/octet-stream",
            "size_bytes": 3,
            "sha256": "0" * 64,
        }
        for number in (1, 2)
    )
    job = JOB | {"state": "cancelled", "artifacts": [best, other]}
    asked: list[str] = []

    @server.app.get("/v1/jobs/{job_id}")
    def get(job_id: UUID) -> Response:
        return JSONResponse(job)

    @server.app.post("/v1/jobs/{job_id}/promote")
    async def promote(job_id: UUID, request: Request) -> Response:
        asked.append((await request.json())["artifact_id"])
        return JSONResponse(job | {"promoted_artifact_id": asked[-1]})

    lathe = connect()
    promoted = lathe.promote(JOB_ID, "2.onnx")
    assert promoted.optimized is not None and promoted.optimized.file_name == "2.onnx"
    assert lathe.promote(JOB_ID, UUID(int=2)) == lathe.promote(JOB_ID, promoted.optimized) == promoted
    assert asked == [other["id"]] * 3
    with pytest.raises(NothingDelivered, match=r"no model `3.onnx`. It has `1.onnx`, `2.onnx`."):
        lathe.promote(JOB_ID, "3.onnx")


def test_a_candidate_of_a_job_that_goes_on_is_promoted_at_its_end(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}")
    def get(job_id: UUID) -> Response:
        return JSONResponse(JOB | {"state": "running"})

    with pytest.raises(NothingDelivered, match="is running: wait for its end"):
        connect().promote(JOB_ID, "int8, static")


def test_what_a_search_tried_is_read_off_its_events(server: Server, connect: Connect) -> None:
    def tried(name: str, outcome: str) -> dict[str, object]:
        trial = {"name": name, "recipe": ["p"], "outcome": outcome, "explanation": "-", "seconds": 1.0}
        return {"trial": trial}

    # A second attempt at the job tried the first candidate again.
    told = [
        ("state", {"state": "running", "attempt": 1}),
        ("trial", tried("a", "failed")),
        ("trial", tried("b", "tried")),
        ("state", {"state": "running", "attempt": 2}),
        ("best", tried("a", "tried")),
    ]

    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: UUID, after: int) -> Response:
        items = [
            {"id": number, "type": kind, "at": "2026-01-01T00:00:00Z", "data": data}
            for number, (kind, data) in enumerate(told, 1)
            if number > after
        ]
        return JSONResponse({"items": items[:3], "next_after": len(items)})  # large ones come on pages of their own

    trials = connect().trials(JOB_ID)
    assert [(one.name, one.outcome) for one in trials] == [("a", "tried"), ("b", "tried")]
