"""What the client does about answers, and about their absence."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from uuid import UUID

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.client import Lathe, LatheApiError, Model, NotConfigured, NothingDelivered, ServiceUnreachable, WaitTimeout
from app.client.errors import LatheClientError
from app.client.following import EVENTS_A_PAGE
from app.errors import InUse, JobOver, LatheError, NotFound, Unavailable
from tests.app.client.conftest import Server

JOB_ID = UUID(int=7)
MODEL = {
    "id": str(UUID(int=1)),
    "name": "a.onnx",
    "status": "ready",
    "problem": None,
    "sha256": "0" * 64,
    "size_bytes": 3,
    "created_at": "2026-01-01T00:00:00Z",
}
JOB = {
    "id": str(JOB_ID),
    "kind": "optimize",
    "state": "queued",
    "phase": None,
    "progress": 0.0,
    "eta_seconds": None,
    "queue_position": 0,
    "attempt": 0,
    "max_attempts": 3,
    "model_id": MODEL["id"],
    "request": None,
    "cancel_requested_at": None,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "error": None,
    "verdict": None,
    "summary": None,
    "artifacts": [],
}

Connect = Callable[..., Lathe]


def refusal(error: LatheError, **headers: str) -> JSONResponse:
    problem = error.problem()
    return JSONResponse(problem.model_dump(), problem.status, headers, "application/problem+json")


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


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_failure_is_retried(server: Server, connect: Connect, status: int) -> None:
    answers = iter([Response("later", status, {"Retry-After": "0"}), JSONResponse(MODEL)])

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return next(answers)

    assert connect().model(MODEL["id"]).name == "a.onnx"


def test_retries_are_told_to_the_log_once_and_never_to_stdout(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = iter([*(Response("later", 503, {"Retry-After": "0"}) for _ in range(2)), JSONResponse(MODEL)])

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return next(answers)

    lathe = connect()
    lathe.model(MODEL["id"])
    told = [record for record in caplog.records if record.name == "lathe"]
    assert [record.levelname for record in told] == ["WARNING"]
    assert lathe.url in told[0].getMessage() and "answered 503" in told[0].getMessage()
    assert capfd.readouterr().out == ""


def test_a_refusal_is_not_retried(server: Server, connect: Connect) -> None:
    count = 0

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        nonlocal count
        count += 1
        return refusal(NotFound(f"There is no model {model_id}."))

    with pytest.raises(LatheApiError):
        connect().model(JOB_ID)
    assert count == 1


def lost(path: str, method: str, server: Server, done: list[str], refused: LatheError) -> None:
    """Carries a call out and answers as a proxy would that lost the answer; the second time it is refused."""

    @server.app.api_route(path, methods=[method])
    def answer(request: Request) -> Response:
        if not done:
            done.append(request.url.path)
            return Response(status_code=502, headers={"Retry-After": "0"})
        return refusal(refused)


def test_a_deletion_whose_answer_was_lost_is_done(server: Server, connect: Connect) -> None:
    models: list[str] = []
    datasets: list[str] = []
    lost("/v1/models/{id}", "DELETE", server, models, NotFound("There is no such model."))
    lost("/v1/datasets/{id}", "DELETE", server, datasets, NotFound("There is no such dataset."))
    lathe = connect()
    lathe.delete_model(JOB_ID)
    lathe.delete_dataset(JOB_ID)
    assert (len(models), len(datasets)) == (1, 1)
    with pytest.raises(LatheApiError, match="not_found"):
        lathe.delete_model(JOB_ID)


@pytest.mark.parametrize("state", ["cancelled", "succeeded"])
def test_a_cancel_whose_answer_was_lost_is_done_where_the_job_is_cancelled(
    server: Server, connect: Connect, state: str
) -> None:
    lost("/v1/jobs/{id}/cancel", "POST", server, [], JobOver(f"The job is {state}."))

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return JSONResponse(JOB | {"state": state})

    lathe = connect()
    if state == "cancelled":
        assert lathe.cancel(JOB_ID).state.value == state
    else:
        with pytest.raises(LatheApiError, match="job_over"):
            lathe.cancel(JOB_ID)


def test_retries_end(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return refusal(Unavailable("Postgres does not answer."))

    with pytest.raises(LatheApiError) as caught:
        connect(retry_seconds=0.2).model(JOB_ID)
    assert caught.value.code == "unavailable"


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


def test_a_submission_keeps_its_idempotency_key_through_retries(server: Server, connect: Connect) -> None:
    keys: list[str] = []
    bodies: list[dict[str, object]] = []

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return JSONResponse(MODEL)

    @server.app.post("/v1/jobs")
    async def submit(request: Request) -> Response:
        keys.append(request.headers["idempotency-key"])
        bodies.append(await request.json())
        return JSONResponse(JOB, 202) if len(keys) >= 3 else Response(status_code=503, headers={"Retry-After": "0"})

    lathe = connect()
    assert lathe.optimize(MODEL["id"], "optimize_graph", metric="top1", contract=0.01).id == JOB_ID
    assert len(set(keys)) == 1
    assert bodies[0] == {
        "model_id": MODEL["id"],
        "recipe": [{"pass": "optimize_graph"}],
        "data": {},
        "metric": {"name": "top1"},
        "contract": {"max_drop": 0.01},
    }
    lathe.optimize(MODEL["id"], "optimize_graph")
    assert len(set(keys)) == 2
    lathe.optimize(MODEL["id"], "optimize_graph", idempotency_key="mine")
    assert keys[-1] == "mine"


def test_a_model_under_inspection_is_waited_for_before_a_job_is_submitted(server: Server, connect: Connect) -> None:
    statuses = iter(["inspecting", "inspecting", "ready"])
    submitted_after: list[str] = []

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        submitted_after.append(next(statuses))
        return JSONResponse({**MODEL, "status": submitted_after[-1]})

    @server.app.post("/v1/jobs")
    def submit() -> Response:
        assert submitted_after[-1] == "ready"
        return JSONResponse(JOB, 202)

    assert connect().optimize(UUID(int=1), ["optimize_graph"]).id == JOB_ID


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


def test_waiting_asks_only_for_changes_and_tells_of_each(server: Server, connect: Connect) -> None:
    states = iter([("a", "queued"), ("a", "queued"), ("b", "running"), ("c", "failed")])

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID, request: Request) -> Response:
        tag, state = next(states)
        headers = {"ETag": f'"{tag}"', "Retry-After": "0"}
        if request.headers.get("if-none-match") == f'"{tag}"':
            return Response(status_code=304, headers=headers)
        return JSONResponse({**JOB, "state": state}, headers=headers)

    seen: list[str] = []
    ended = connect().wait(JOB_ID, on_update=lambda job: seen.append(job.state.value))
    assert seen == ["queued", "running", "failed"]
    assert ended.is_over
    assert not ended.succeeded


def test_waiting_tells_of_every_event_once_and_of_the_last_before_the_end(server: Server, connect: Connect) -> None:
    states = iter(["running", "running", "succeeded"])
    count = 0

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        nonlocal count
        count += EVENTS_A_PAGE  # the last page of a look is full, and an empty one follows
        return JSONResponse({**JOB, "state": next(states)}, headers={"Retry-After": "0"})

    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: UUID, request: Request, after: int, limit: int) -> Response:
        assert request.headers["accept"] == "application/json"
        ids = range(after + 1, min(after + limit, count) + 1)
        items = [{"id": id_, "type": "log", "at": "2026-01-01T00:00:00Z", "data": {}} for id_ in ids]
        return JSONResponse({"items": items, "next_after": after})

    seen: list[int | str] = []
    connect().wait(
        JOB_ID,
        on_update=lambda job: seen.append(job.state.value),
        on_event=lambda event: seen.append(event.id),
    )
    assert [item for item in seen if isinstance(item, int)] == list(range(1, 3 * EVENTS_A_PAGE + 1))
    assert seen[-1] == "succeeded"


def test_waiting_ends_at_its_timeout(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return JSONResponse(JOB, headers={"Retry-After": "0"})

    with pytest.raises(WaitTimeout, match=str(JOB_ID)):
        connect().wait(JOB_ID, timeout_seconds=0.05)


def test_waiting_ends_at_its_timeout_though_the_service_is_away() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Lathe(url, "lth_test") as lathe, pytest.raises(WaitTimeout, match=str(JOB_ID)):
            lathe.wait(JOB_ID, timeout_seconds=0.3)


def test_waiting_ends_at_its_timeout_though_the_service_names_a_longer_pause(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return Response(status_code=503, headers={"Retry-After": "3600"})

    upload = Model.model_validate({**MODEL, "status": "inspecting"})
    with pytest.raises(WaitTimeout, match="answered 503"):
        connect().wait_until_ready(upload, timeout_seconds=0.3)


def test_a_service_that_is_away_longer_than_a_minute_is_asked_again_after_one(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Response("later", 503, {"Retry-After": "120"}), JSONResponse(JOB | {"state": "failed"})])
    monkeypatch.setattr("app.client.transport.LONGEST_RETRY_AFTER_SECONDS", 0.1)

    @server.app.get("/v1/jobs/{job_id}")
    def job(job_id: UUID) -> Response:
        return next(answers)

    assert connect().wait(JOB_ID).is_over


def test_an_answer_that_breaks_off_is_asked_for_again(server: Server, connect: Connect) -> None:
    whole = json.dumps(MODEL)
    bodies = iter([whole[:20], whole])

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        headers = {"Content-Length": str(len(whole)), "Content-Type": "application/json"}
        return StreamingResponse(iter([next(bodies)]), headers=headers)

    assert connect().model(MODEL["id"]).name == "a.onnx"


def test_an_answer_that_cannot_be_unpacked_is_asked_for_again(server: Server, connect: Connect) -> None:
    broken = Response(b"no gzip", headers={"Content-Encoding": "gzip"})
    answers = iter([broken, broken, JSONResponse(MODEL)])

    @server.app.get("/v1/models/{model_id}")
    def model(model_id: UUID) -> Response:
        return next(answers)

    lathe = connect(retry_seconds=0)
    with pytest.raises(ServiceUnreachable, match="decompressing"):
        lathe.model(MODEL["id"])
    assert lathe.wait_until_ready(Model.model_validate({**MODEL, "status": "inspecting"})).status == "ready"


def test_a_page_in_place_of_events_ends_them(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: UUID) -> Response:
        return Response("<html>Welcome to nginx!</html>", media_type="text/html")

    with pytest.raises(LatheApiError, match="Check the URL") as caught:
        next(connect().events(JOB_ID))
    assert caught.value.code == "unexpected_answer"


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
