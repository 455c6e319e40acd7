"""What the client asks again for, and when it stops."""

import json
from uuid import UUID

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from app.client import LatheApiError, Model, ServiceUnreachable
from app.errors import JobOver, LatheError, NotFound, Unavailable
from tests.app.client.answers import JOB, JOB_ID, MODEL, refusal
from tests.app.client.conftest import Connect, Server


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
    artifacts: list[str] = []
    lost("/v1/datasets/{id}", "DELETE", server, datasets, NotFound("There is no such dataset."))
    lost("/v1/artifacts/{id}", "DELETE", server, artifacts, NotFound("There is no such artifact."))
    lathe = connect()
    lathe.delete_model(JOB_ID)
    lathe.delete_dataset(JOB_ID)
    lathe.delete_artifact(JOB_ID)
    assert (len(models), len(datasets), len(artifacts)) == (1, 1, 1)
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
