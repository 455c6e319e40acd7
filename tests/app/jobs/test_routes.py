"""`/v1/jobs` as a client meets it."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.access.service import ensure_workspace
from app.artifacts.tables import ArtifactRow
from app.blobs.tables import BlobRow
from app.database import Database
from app.errors import Fault
from app.jobs import lease
from app.jobs.lease import Progress
from app.jobs.service import TRIED
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow, ReportRow
from app.paging import MAX_PAGE_BYTES
from tests.app.jobs.factories import add_job, add_model, read_job, submit

pytestmark = pytest.mark.anyio
Headers = dict[str, str]


async def test_a_submitted_job_is_queued_with_every_default_filled_in(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    answer = await client.post("/v1/jobs", json=body, headers=writer)
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert "retry-after" in answer.headers
    assert (job["state"], job["queue_position"], job["attempt"]) == ("queued", 0, 0)
    assert job["request"]["recipe"] == [{"pass": "optimize_graph", "opset": None, "fuse_transformers": True}]
    assert job["request"]["metric"]["name"] == "agreement"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"recipe": []}, "validation_failed"),
        ({"recipe": [{"pass": "no_such_pass"}]}, "validation_failed"),
        ({"recipe": [{"pass": "optimize_graph", "opsett": 17}]}, "validation_failed"),
        ({"unknown": 1}, "validation_failed"),
        ({"target": {"shapes": {"x": [2**31, 4]}}}, "validation_failed"),
        ({"target": {"shapes": {"x": [1] * 65}}}, "validation_failed"),
        ({"contract": {"max_drop": 2}}, "validation_failed"),
        ({"recipe": [{"pass": "quantize_static"}]}, "data_required"),
        ({"metric": {"name": "top1"}}, "data_required"),
        ({"budget_seconds": 10_000_000}, "budget_too_large"),
        ({"recipe": [{"pass": "quantize_dynamic", "exclude": ["a\0b"]}]}, "validation_failed"),
        ({"target": {"shapes": {"x\0": [1, 4]}}}, "validation_failed"),
        ({"recipe": [{"pass": "quantize_dynamic", "exclude": ["n" * 4097]}]}, "validation_failed"),
    ],
    ids=[
        "no-pass",
        "no-such-pass",
        "unknown-argument",
        "unknown-field",
        "axis-beyond-32-bits",
        "more-axes-than-numpy-has",
        "drop-over-one",
        "no-data",
        "no-labels",
        "budget",
        "nul",
        "nul-in-a-members-name",
        "overlong-name",
    ],
)
async def test_an_impossible_request_is_refused_with_its_code(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    writer: Headers,
    database: Database,
    change: dict[str, Any],
    code: str,
) -> None:
    answer = await client.post("/v1/jobs", json=body | change, headers=writer)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    with database.session_scope() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0


@pytest.mark.parametrize(
    ("columns", "status", "code"),
    [
        ({"status": "inspecting", "inspection": None}, 409, "not_ready"),
        ({"status": "rejected", "inspection": None, "problem": {"detail": "no ONNX"}}, 422, "model_rejected"),
    ],
    ids=["inspecting", "rejected"],
)
async def test_a_model_that_is_not_ready_is_said_so(
    client: httpx.AsyncClient,
    database: Database,
    workspace_id: UUID,
    writer: Headers,
    columns: dict[str, Any],
    status: int,
    code: str,
) -> None:
    model_id = add_model(database, workspace_id, **columns)
    body = {"model_id": str(model_id), "recipe": [{"pass": "optimize_graph"}]}
    answer = await client.post("/v1/jobs", json=body, headers=writer)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 409)


async def test_a_name_that_only_looks_like_nul_is_a_name(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    name = r"a\u0000b"
    body["recipe"] = [{"pass": "quantize_dynamic", "exclude": [name]}]
    job = await submit(client, body, writer)
    assert job["request"]["recipe"][0]["exclude"] == [name]


async def test_another_workspaces_model_and_job_are_not_there(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, stranger: Headers
) -> None:
    assert (await client.post("/v1/jobs", json=body, headers=stranger)).status_code == 404
    job = await submit(client, body, writer)
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/report"), ("POST", "/cancel")):
        answer = await client.request(method, f"/v1/jobs/{job['id']}{path}", headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert (await client.get("/v1/jobs", headers=stranger)).json()["items"] == []


async def test_the_same_key_and_body_are_one_job_however_often(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database
) -> None:
    headers = writer | {"Idempotency-Key": "one"}
    answers = await asyncio.gather(*(client.post("/v1/jobs", json=body, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    # The order of fields and spelled-out defaults do not make another request.
    again = {"objective": "latency"} | dict(reversed(body.items()))
    assert (await client.post("/v1/jobs", json=again, headers=headers)).json()["id"] == answers[0].json()["id"]
    with database.session_scope() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 1


async def test_another_body_under_the_key_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    headers = writer | {"Idempotency-Key": "one"}
    await submit(client, body, headers)
    answer = await client.post("/v1/jobs", json=body | {"seed": 1}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_request_does_not_use_up_its_key(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    headers = writer | {"Idempotency-Key": "one"}
    refused = await client.post("/v1/jobs", json=body | {"model_id": str(uuid4())}, headers=headers)
    assert refused.status_code == 404
    await submit(client, body, headers)


async def test_keys_of_two_workspaces_do_not_meet(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, stranger: Headers
) -> None:
    await submit(client, body, writer | {"Idempotency-Key": "one"})
    answer = await client.post("/v1/jobs", json=body, headers=stranger | {"Idempotency-Key": "one"})
    assert answer.status_code == 404  # the model's, not the other's job


async def test_polling_is_cheap_with_an_etag(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database
) -> None:
    job = await submit(client, body, writer)
    first = await client.get(f"/v1/jobs/{job['id']}", headers=writer)
    tag = first.headers["etag"]
    same = await client.get(f"/v1/jobs/{job['id']}", headers=writer | {"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    with database.session_scope() as session:
        held = lease.claim(session, UUID(job["id"]), "test", 45.0)
        assert held is not None
        lease.record(session, held, Progress(phase="calibrating", progress=0.25, eta_seconds=9.0), [])
    changed = await client.get(f"/v1/jobs/{job['id']}", headers=writer | {"If-None-Match": tag})
    assert changed.status_code == 200
    seen = {name: changed.json()[name] for name in ("state", "phase", "progress", "eta_seconds", "queue_position")}
    assert seen == {
        "state": "running",
        "phase": "calibrating",
        "progress": 0.25,
        "eta_seconds": 9.0,
        "queue_position": None,
    }


async def places_in_list(client: httpx.AsyncClient, headers: Headers) -> list[int | None]:
    """The places of all queued jobs as a list has them, the oldest job first."""
    page = (await client.get("/v1/jobs", params={"state": "queued"}, headers=headers)).json()
    return [job["queue_position"] for job in reversed(page["items"])]


async def test_the_queue_position_counts_those_before(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    jobs = [await submit(client, body | {"priority": priority}, writer) for priority in ("low", "normal", "high")]
    answers = [await client.get(f"/v1/jobs/{job['id']}", headers=writer) for job in jobs]
    assert [answer.json()["queue_position"] for answer in answers] == [2, 1, 0]
    assert await places_in_list(client, writer) == [2, 1, 0]


async def test_the_queue_position_counts_as_many_of_each_other_workspace_as_of_ones_own(
    client: httpx.AsyncClient, database: Database, writer: Headers, stranger: Headers
) -> None:
    with database.session_scope() as session:
        elsewhere = ensure_workspace(session, "elsewhere")
    for _ in range(3):
        add_job(database, workspace_id=elsewhere)
    mine = [add_job(database) for _ in range(5)]
    answers = [await client.get(f"/v1/jobs/{job_id}", headers=writer) for job_id in mine]
    assert [answer.json()["queue_position"] for answer in answers] == [0, 2, 4, 6, 7]
    assert await places_in_list(client, writer) == [0, 2, 4, 6, 7]


async def test_the_queue_position_counts_those_that_train_for_the_same_device(
    client: httpx.AsyncClient, database: Database, writer: Headers
) -> None:
    """Who can train takes them by turns with the others."""
    queues = ("cpu", "cpu-training", "gpu-training", "cpu", "inspect", "cpu-training", "gpu")
    jobs = [add_job(database, queue=queue) for queue in queues]
    answers = [await client.get(f"/v1/jobs/{job_id}", headers=writer) for job_id in jobs]
    assert [answer.json()["queue_position"] for answer in answers] == [0, 1, 0, 2, 0, 3, 1]
    assert await places_in_list(client, writer) == [0, 1, 0, 2, 0, 3, 1]


async def test_lists_are_paged_newest_first_and_filtered(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers
) -> None:
    ids = [(await submit(client, body, writer))["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/jobs", params=parameters, headers=writer)).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    for parameters, count in (
        ({"state": "running"}, 0),
        ({"model": body["model_id"]}, 5),
        ({"model": str(uuid4())}, 0),
    ):
        page = (await client.get("/v1/jobs", params=parameters, headers=writer)).json()
        assert len(page["items"]) == count
    refused = await client.get("/v1/jobs", params={"cursor": "no cursor"}, headers=writer)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_cursor")


async def test_a_page_ends_early_where_requests_said_much(
    client: httpx.AsyncClient, database: Database, writer: Headers
) -> None:
    # Past half of what a page holds, so that two fill it; of one letter, which would shrink to nothing if compressed.
    request = {"recipe": [{"pass": "quantize_dynamic", "exclude": ["x" * (MAX_PAGE_BYTES // 2 + 1)]}]}
    ids = [str(add_job(database, request=request)) for _ in range(3)]
    first = (await client.get("/v1/jobs", headers=writer)).json()
    second = (await client.get(f"/v1/jobs?cursor={first['next_cursor']}", headers=writer)).json()
    assert [job["id"] for job in first["items"]] == [ids[2], ids[1]]
    assert ([job["id"] for job in second["items"]], second["next_cursor"]) == ([ids[0]], None)


async def test_inspections_are_listed_only_when_asked_for(
    client: httpx.AsyncClient, database: Database, writer: Headers
) -> None:
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL)
    assert (await client.get("/v1/jobs", headers=writer)).json()["items"] == []
    page = (await client.get("/v1/jobs", params={"kind": "inspect_model"}, headers=writer)).json()
    assert [job["id"] for job in page["items"]] == [str(job_id)]


async def test_cancelling(client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database) -> None:
    job = await submit(client, body, writer)
    cancelled = await client.post(f"/v1/jobs/{job['id']}/cancel", headers=writer)
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    again = await client.post(f"/v1/jobs/{job['id']}/cancel", headers=writer)
    assert (again.status_code, again.json()["code"]) == (409, "job_over")

    job = await submit(client, body, writer)
    with database.session_scope() as session:
        assert lease.claim(session, UUID(job["id"]), "test", 45.0) is not None
    asked = (await client.post(f"/v1/jobs/{job['id']}/cancel", headers=writer)).json()
    assert asked["state"] == "running" and asked["cancel_requested_at"] is not None
    assert read_job(database, UUID(job["id"])).cancel_requested_at is not None


async def test_a_report_is_there_when_the_job_left_one(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database
) -> None:
    job = await submit(client, body, writer)
    early = await client.get(f"/v1/jobs/{job['id']}/report", headers=writer)
    assert (early.status_code, early.json()["code"]) == (409, "report_not_ready")
    with database.session_scope() as session:
        session.add(ReportRow(job_id=UUID(job["id"]), body={"baseline": {"load_ms": 1.5}}))
    answer = await client.get(f"/v1/jobs/{job['id']}/report", headers=writer)
    assert answer.json() == {"baseline": {"load_ms": 1.5}}


FAULT = Fault(code="model_fails", title="-", detail="Node `conv` has no kernel.", remedy="Fix the node.")


@pytest.mark.parametrize(
    ("columns", "said", "remedy"),
    [
        ({"state": "cancelled"}, "was cancelled", "Submit it again"),
        ({"state": "cancelled", "request": {"recipe": "auto"}}, "was cancelled", f"Submit it again for one.{TRIED}"),
        ({"state": "expired"}, "expired while it waited", "Submit it again"),
        ({"state": "failed", "error": FAULT.model_dump()}, "failed: Node `conv` has no kernel.", "Fix the node."),
        ({"state": "succeeded", "kind": JobKind.INSPECT_MODEL}, "a report is what an optimization leaves", None),
    ],
    ids=["cancelled", "cancelled-search", "expired", "failed", "inspection"],
)
async def test_a_job_that_ended_otherwise_says_how_in_place_of_its_report(
    client: httpx.AsyncClient,
    database: Database,
    writer: Headers,
    columns: dict[str, Any],
    said: str,
    remedy: str | None,
) -> None:
    answer = await client.get(f"/v1/jobs/{add_job(database, **columns)}/report", headers=writer)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "no_report")
    assert said in problem["detail"]
    assert "yet" not in problem["title"]
    assert (problem.get("remedy") or "").startswith(remedy or "")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/report", "/v1/nothing", "/healthz"])
async def test_an_answer_ends_its_line(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database, path: str
) -> None:
    """In a terminal the prompt would stand behind it."""
    job = await submit(client, body, writer)
    with database.session_scope() as session:
        session.add(ReportRow(job_id=UUID(job["id"]), body={"baseline": {"load_ms": 1.5}}))
    answer = await client.get(path.format(id=job["id"]), headers=writer)
    assert answer.text.endswith("}\n")
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_job_that_succeeded_names_its_artifacts(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database, workspace_id: UUID
) -> None:
    job_id = UUID((await submit(client, body, writer))["id"])
    with database.session_scope() as session:
        blob = BlobRow(id=uuid7(), workspace_id=workspace_id, sha256=b"s" * 32, size_bytes=3)
        session.add(blob)
        session.flush()
        known = {"workspace_id": workspace_id, "job_id": job_id, "blob_id": blob.id, "sha256": b"s" * 32}
        session.add(ArtifactRow(kind="model", file_name="m.onnx", media_type="x/y", size_bytes=3, **known))
        held = lease.claim(session, job_id, "test", 45.0)
        assert held is not None
        assert lease.finish(session, held, JobState.SUCCEEDED)
    answer = await client.get(f"/v1/jobs/{job_id}", headers=writer)
    job = answer.json()
    assert (job["state"], job["progress"], "retry-after" in answer.headers) == ("succeeded", 1.0, False)
    assert [(each["file_name"], each["sha256"]) for each in job["artifacts"]] == [("m.onnx", (b"s" * 32).hex())]


async def test_a_submission_wakes_a_worker(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    writer: Headers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken: list[tuple[UUID, str, int]] = []
    monkeypatch.setattr("app.queue.Queue.wake", lambda _self, *arguments: woken.append(arguments))
    job = await submit(client, body | {"priority": "high"}, writer)
    assert woken == [(UUID(job["id"]), "cpu", 0)]
    with database.session_scope() as session:
        assert session.get_one(JobRow, UUID(job["id"])).published_at is not None
