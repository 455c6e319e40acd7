"""Every path and verb of the OpenAPI document, by every kind of caller.

The list is read off the document: a new operation is walked at once, and one that this file has no rule for fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text, update
from uuid_utils.compat import uuid7

from app.access.keys import SCOPES
from app.access.service import revoke_key
from app.access.tables import ApiKeyRow
from app.artifacts.tables import ArtifactRow
from app.database import Database
from app.datasets.tables import DatasetRow
from app.jobs.states import JobState
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.schema import METADATA
from app.surface import surface_of
from app.uploads.protocol import OFFSET_OCTETS, PATH, VERSION
from app.uploads.tables import ResumableUploadRow, UploadPartRow
from app.webhooks.service import create as create_webhook
from app.webhooks.tables import DeliveryRow, WebhookRow
from tests.app.jobs.factories import add_artifact, add_job
from tests.app.uploads import OCTETS, metadata, settle, upload
from tests.conftest import MakeKey, bearer

Headers = dict[str, str]
# For whoever runs the service; nothing of a workspace is in what they answer.
OPEN = frozenset({"get_links", "get_health", "get_readiness", "get_metrics"})
# Operations whose scope is not that of their verb: `read` for GET, `write` for all else.
ADMINISTRATION = (
    "list_audit",
    "create_webhook",
    "list_webhooks",
    "get_webhook",
    "delete_webhook",
    "test_webhook",
    "list_webhook_deliveries",
)
SCOPES_OF = dict.fromkeys(ADMINISTRATION, "admin") | {"get_upload": "write"}
KINDS = (ModelRow, DatasetRow, ResumableUploadRow, UploadPartRow, JobRow, ArtifactRow, WebhookRow, DeliveryRow)
# Bodies that fit the schema, with the ids of a workspace's objects: what is wrong with one is said before anything is
# looked for. Uploads take bytes.
BODIES: dict[str, Callable[["Objects"], dict[str, Any]]] = {
    "submit_job": lambda objects: {"model_id": objects["model_id"], "recipe": [{"pass": "optimize_graph"}]},
    "promote_artifact": lambda objects: {"artifact_id": objects["artifact_id"]},
    # An address that needs no name server, and is sent nothing: no housekeeping runs.
    "create_webhook": lambda _: {"url": "https://93.184.215.14/hook"},
}
# What those who upload in parts send beside their key.
TUS = {"Tus-Resumable": VERSION, "Content-Type": OFFSET_OCTETS, "Upload-Length": "100", "Upload-Offset": "0"} | {
    "Upload-Metadata": metadata(kind="model", name="x")
}
# An id of each kind that a path may hold, by the name of its parameter: see `own`.
Objects = dict[str, str]


@dataclass(frozen=True)
class Operation:
    """One verb at one address."""

    id: str
    method: str
    path: str
    takes: str | None
    """`json`, `bytes`, or nothing."""

    @property
    def scope(self) -> str:
        return SCOPES_OF.get(self.id, "read" if self.method in ("GET", "HEAD") else "write")

    @property
    def names_an_object(self) -> bool:
        return "{" in self.path or (self.takes == "json" and self.id != "create_webhook")


def operations(app: FastAPI) -> list[Operation]:
    """What asks for a key, HEAD beside GET where it is answered."""
    found = []
    for path, item in app.openapi()["paths"].items():
        for verb, operation in item.items():
            if operation["operationId"] in OPEN:
                continue
            content = operation.get("requestBody", {}).get("content", {})
            takes = None if not content else "json" if "application/json" in content else "bytes"
            found.append(Operation(operation["operationId"], verb.upper(), path, takes))
            if verb == "get" and "HEAD" in surface_of(app).methods(path):
                found.append(Operation(operation["operationId"], "HEAD", path, None))
    return found


async def call(
    client: httpx.AsyncClient, operation: Operation, objects: Objects, headers: Headers
) -> tuple[int, str | None]:
    """The status, and the code of the problem if it is one; fails where an operation needs a rule that is not here."""
    try:
        address = operation.path.format(**objects)
        body = BODIES[operation.id](objects) if operation.takes == "json" else None
    except KeyError as missing:
        pytest.fail(f"{operation.method} {operation.path}: this file has no rule for {missing}")
    content: dict[str, Any] = {"json": body} if body is not None else {}
    if operation.takes == "bytes":
        content, headers = {"content": b"other bytes", "params": {"name": "x"}}, headers | OCTETS
    if operation.path.startswith(PATH):
        content, headers = {key: value for key, value in content.items() if key != "params"}, headers | TUS
    if operation.id == "get_events":
        headers = headers | {"Accept": "application/json"}
    answer = await client.request(operation.method, address, headers=headers, **content)
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json") and answer.content
    return answer.status_code, answer.json()["code"] if is_problem else None


@pytest.fixture
async def own(client: httpx.AsyncClient, writer: Headers, database: Database, workspace_id: UUID) -> Objects:
    """One object of each kind, of the workspace `default`."""
    model, dataset = await upload(client, writer, "models"), await upload(client, writer, "datasets")
    settle(database, "models", model["id"])
    settle(database, "datasets", dataset["id"])
    job_id = add_job(database)
    with database.session_scope() as session:
        stored = session.get_one(ModelRow, UUID(model["id"])).blob_id
    artifact_id = add_artifact(database, workspace_id, job_id, blob_id=stored, size_bytes=model["size_bytes"])
    begun = await client.post(PATH, headers=writer | TUS)
    with database.session_scope() as session:
        webhook_id = create_webhook(session, workspace_id, "https://93.184.215.14/hook").id
    return {
        "upload_id": begun.headers["location"].rpartition("/")[2],
        "model_id": model["id"],
        "dataset_id": dataset["id"],
        "job_id": str(job_id),
        "artifact_id": str(artifact_id),
        "webhook_id": str(webhook_id),
    }


def nothing() -> Objects:
    """Ids that nothing has."""
    kinds = ("model_id", "dataset_id", "upload_id", "job_id", "artifact_id", "webhook_id")
    return {name: str(uuid7()) for name in kinds}


def revoke(database: Database, key: str) -> None:
    with database.session_scope() as session:
        assert revoke_key(session, key.split("_")[1])


def expire(database: Database, key: str) -> None:
    with database.session_scope() as session:
        own_row = update(ApiKeyRow).where(ApiKeyRow.prefix == key.split("_")[1])
        session.execute(own_row.values(expires_at=ApiKeyRow.created_at - timedelta(seconds=1)))


@pytest.mark.parametrize("spoil", [revoke, expire], ids=["revoked", "expired"])
async def test_a_key_that_is_over_opens_no_operation(
    app: FastAPI,
    client: httpx.AsyncClient,
    own: Objects,
    make_key: MakeKey,
    database: Database,
    spoil: Callable[[Database, str], None],
) -> None:
    key = make_key(scopes=SCOPES)
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    spoil(database, key)
    for operation in operations(app):
        status, code = await call(client, operation, own, bearer(key))
        assert (status, code) == (401, None if operation.method == "HEAD" else "unauthenticated"), operation


async def test_every_operation_wants_a_key(app: FastAPI, client: httpx.AsyncClient, own: Objects) -> None:
    for operation in operations(app):
        # Neither a body nor a parameter is looked at before the key is.
        bare = await client.request(operation.method, operation.path.format(**own))
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer"), operation
        assert (await call(client, operation, own, {}))[0] == 401, operation


async def test_every_operation_wants_its_scope(
    app: FastAPI, client: httpx.AsyncClient, own: Objects, make_key: MakeKey
) -> None:
    for operation in operations(app):
        others = bearer(make_key(scopes=tuple(scope for scope in SCOPES if scope != operation.scope)))
        status, code = await call(client, operation, own, others)
        assert (status, code) == (403, None if operation.method == "HEAD" else "missing_scope"), operation


async def test_its_scope_alone_opens_every_operation(
    app: FastAPI, client: httpx.AsyncClient, own: Objects, make_key: MakeKey
) -> None:
    """What makes the refusals of the other tests say something: the same requests, by who may make them."""
    for operation in sorted(operations(app), key=lambda operation: operation.method == "DELETE"):
        status, code = await call(client, operation, own, bearer(make_key(scopes=(operation.scope,))))
        assert status not in (401, 403, 404, 405, 422, 500), (operation, status, code)


async def test_no_operation_knows_the_objects_of_another_workspace(
    app: FastAPI, client: httpx.AsyncClient, own: Objects, make_key: MakeKey, database: Database
) -> None:
    stranger = bearer(make_key(workspace="elsewhere", scopes=SCOPES))
    before = rows(database)
    for operation in operations(app):
        if operation.names_an_object:
            found = await call(client, operation, own, stranger)
            assert found == (404, None if operation.method == "HEAD" else "not_found"), operation
            # The same as of what nobody has: an answer does not tell that there is something.
            assert found == await call(client, operation, nothing(), stranger), operation
    assert rows(database) == before, "what was refused changes nothing"


async def test_no_list_shows_the_objects_of_another_workspace(
    app: FastAPI, client: httpx.AsyncClient, own: Objects, make_key: MakeKey
) -> None:
    everywhere = bearer(make_key(workspace="elsewhere", scopes=SCOPES))
    for operation in operations(app):
        if operation.method == "GET" and "{" not in operation.path:
            answer = await client.get(operation.path, headers=everywhere)
            assert answer.status_code == 200, operation
            assert [name for name, row_id in own.items() if row_id in answer.text] == [], operation


Request = dict[str, Any]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda theirs, mine: mine | {"model_id": theirs["model_id"]},
        lambda theirs, mine: mine | {"data": {"calibration": theirs["dataset_id"]}},
        lambda theirs, mine: mine | {"data": {"evaluation": theirs["dataset_id"]}},
        lambda theirs, mine: mine | {"data": {"training": theirs["dataset_id"]}},
        lambda theirs, mine: mine | {"recipe": [{"pass": "distill", "teacher": theirs["model_id"]}]},
        lambda theirs, mine: mine | {"recipe": [{"pass": "distill", "student": theirs["model_id"]}]},
    ],
    ids=["model", "calibration", "evaluation", "training", "teacher", "student"],
)
async def test_no_job_reads_what_another_workspace_holds(
    client: httpx.AsyncClient,
    own: Objects,
    stranger: Headers,
    database: Database,
    request_of: Callable[[Objects, Request], Request],
) -> None:
    mine = await upload(client, stranger, "models", b"their own bytes")
    settle(database, "models", mine["id"])
    body = {"model_id": mine["id"], "recipe": [{"pass": "optimize_graph"}]}
    assert (await client.post("/v1/jobs", json=body, headers=stranger)).status_code == 202
    answer = await client.post("/v1/jobs", json=request_of(own, body), headers=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_job_is_promoted_to_none_of_another_workspaces_models(
    client: httpx.AsyncClient, own: Objects, stranger: Headers, database: Database
) -> None:
    with database.session_scope() as session:
        elsewhere = session.execute(text("SELECT id FROM workspaces WHERE name = 'elsewhere'")).scalar_one()
    theirs = add_job(database, workspace_id=elsewhere, state=JobState.SUCCEEDED)
    answer = await client.post(f"/v1/jobs/{theirs}/promote", json={"artifact_id": own["artifact_id"]}, headers=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_filter_finds_nothing_of_another_workspace(
    client: httpx.AsyncClient, own: Objects, stranger: Headers, database: Database
) -> None:
    with database.session_scope() as session:
        session.execute(update(JobRow).where(JobRow.id == UUID(own["job_id"])).values(model_id=UUID(own["model_id"])))
    for query in (f"model={own['model_id']}", "state=queued", "kind=inspect_model"):
        answer = await client.get(f"/v1/jobs?{query}", headers=stranger)
        assert answer.json()["items"] == [], query
    for kind in ("models", "datasets"):
        assert (await client.get(f"/v1/{kind}?name=thing", headers=stranger)).json()["items"] == []


async def test_the_same_bytes_and_the_same_idempotency_key_are_each_workspaces_own(
    client: httpx.AsyncClient, own: Objects, writer: Headers, stranger: Headers, database: Database
) -> None:
    mine = await upload(client, stranger, "models")
    assert mine["id"] != own["model_id"]
    settle(database, "models", mine["id"])
    jobs = []
    for model_id, headers in ((own["model_id"], writer), (mine["id"], stranger)):
        body = {"model_id": model_id, "recipe": [{"pass": "optimize_graph"}]}
        jobs.append(await client.post("/v1/jobs", json=body, headers=headers | {"Idempotency-Key": "one"}))
    assert [job.status_code for job in jobs] == [202, 202]
    assert jobs[0].json()["id"] != jobs[1].json()["id"]


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of objects."""
    with database.session_scope() as session:
        return {
            table.name: [tuple(row) for row in session.execute(table.select().order_by(*table.primary_key))]
            for table in (METADATA.tables[kind.__tablename__] for kind in KINDS)
        }
