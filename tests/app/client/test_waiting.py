"""The client waits: for changes alone, to its timeout, through a service's absence."""

import socket
from uuid import UUID

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from app.client import Lathe, LatheApiError, Model, WaitTimeout
from app.client.following import EVENTS_A_PAGE
from tests.app.client.answers import JOB, JOB_ID, MODEL
from tests.app.client.conftest import Connect, Server


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


def test_a_page_in_place_of_events_ends_them(server: Server, connect: Connect) -> None:
    @server.app.get("/v1/jobs/{job_id}/events")
    def events(job_id: UUID) -> Response:
        return Response("<html>Welcome to nginx!</html>", media_type="text/html")

    with pytest.raises(LatheApiError, match="Check the URL") as caught:
        next(connect().events(JOB_ID))
    assert caught.value.code == "unexpected_answer"
