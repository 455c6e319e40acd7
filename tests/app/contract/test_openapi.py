"""What the API does, held against its OpenAPI document, by requests that schemathesis makes of the document.

Real HTTP to the real application on the real servers. The requests are the same in every run, and so few of each
operation that all of them take seconds.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from uuid import UUID

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from app.access.keys import SCOPES
from app.client.transport import own_connections
from app.config import Settings
from app.database import Database
from app.heads import HttpProtocol
from app.jobs.states import JobState
from app.main import create_app
from app.models.tables import ModelRow
from app.uploads.protocol import PATH, VERSION
from tests.app.health.factories import add_worker
from tests.app.jobs.factories import add_artifact, add_job
from tests.app.uploads import OCTETS, metadata, settle
from tests.conftest import MakeKey, bearer

Headers = dict[str, str]
EXAMPLES = int(os.environ.get("LATHE_TEST_EXAMPLES", "3"))
WALKS, STEPS = int(os.environ.get("LATHE_TEST_WALKS", "1")), 8
BOUNDS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
# With what a request that does not fit the document may be refused.
REFUSALS = ["400", "404", "405", "406", "409", "412", "413", "415", "416", "422"]
CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@pytest.fixture
def key(make_key: MakeKey) -> Headers:
    return bearer(make_key(scopes=SCOPES))


@pytest.fixture
def address(settings: Settings, database: Database) -> Iterator[str]:
    """The API under uvicorn, in a thread of this process, without a limit on requests, and beside a live worker."""
    add_worker(database, silent_seconds=-3600)  # live however long the test takes
    unlimited = settings.limits.model_copy(update={"requests_per_minute": 0})
    app = create_app(settings.model_copy(update={"limits": unlimited}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=HttpProtocol))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def known(address: str, key: Headers, database: Database, workspace_id: UUID) -> dict[str, str]:
    """Ids that a path may hold and that something has, so that more is seen than what is said of nothing."""
    with httpx.Client(base_url=address, headers=key, **own_connections(address)) as client:
        model = client.post("/v1/models?name=x", content=b"bytes", headers=OCTETS).json()
        dataset = client.post("/v1/datasets?name=x", content=b"bytes", headers=OCTETS).json()
        begin = {"Tus-Resumable": VERSION, "Upload-Length": "100", "Upload-Metadata": metadata(kind="model", name="y")}
        begun = client.post(PATH, headers=begin)
    settle(database, "models", model["id"])
    settle(database, "datasets", dataset["id"])
    job_id = add_job(database, state=JobState.SUCCEEDED)
    with database.session_scope() as session:
        stored = session.get_one(ModelRow, UUID(model["id"])).blob_id
    return {
        "model_id": model["id"],
        "dataset_id": dataset["id"],
        "upload_id": begun.headers["location"].rpartition("/")[2],
        "job_id": str(job_id),
        "artifact_id": str(add_artifact(database, workspace_id, job_id, blob_id=stored, size_bytes=5)),
    }


def without_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what it says of keys: those are walked elsewhere, and every request here has a good one."""
    copied = deepcopy(document)
    for item in copied["paths"].values():
        for operation in item.values():
            operation.pop("security", None)
    del copied["components"]["securitySchemes"]
    return copied


def operations(document: dict[str, Any]) -> list[APIOperation]:
    """Every operation; those that delete come last, so that the others meet what is there."""
    schema = schemathesis.openapi.from_dict(without_keys(document), config=CONFIG)
    found = [result.ok() for result in schema.get_all_operations()]
    return sorted(found, key=lambda operation: str(operation.method).upper() == "DELETE")


def test_every_operation_keeps_what_the_document_says_of_it(
    address: str, routed: FastAPI, key: Headers, known: dict[str, str]
) -> None:
    walked = operations(routed.openapi())
    checks = CHECKS.get_by_names(NAMES)
    for operation in walked:
        hold(operation, lambda case: case.call_and_validate(address, headers=key, checks=checks, timeout=20), known)
    assert len(walked) == sum(len(item) for item in routed.openapi()["paths"].values())


def test_where_answers_lead_to_is_there_until_it_is_deleted(
    address: str, routed: FastAPI, key: Headers, known: dict[str, str]
) -> None:
    """Sequences of requests along the document's links, from what one answer made to what may be done with it."""
    followed: Counter[tuple[str, int]] = Counter()
    # What is refused makes nothing that leads on: a model is there, and the address needs no name server.
    bodies: dict[str, Any] = {
        "/v1/jobs": {"model_id": known["model_id"], "recipe": [{"pass": "optimize_graph"}]},
        "/v1/webhooks": {"url": "https://93.184.215.14/hook"},
    }
    document = schemathesis.openapi.from_dict(without_keys(routed.openapi()), config=CONFIG)
    there = CHECKS.get_by_names((*NAMES, "use_after_free", "ensure_resource_availability"))
    # What is promoted is named in the body: a job that is there has no artifact of a random id. A stream of events is
    # text to the document, and schemathesis holds each event against it.
    plain = {
        "/promote": CHECKS.get_by_names((*NAMES, "use_after_free")),
        "/events": [check for check in there if check.__name__ != "response_schema_conformance"],
    }

    class Walk(document.as_state_machine()):  # type: ignore[misc] # made at run time
        def before_call(self, case: Case) -> None:
            if case.method == "POST" and case.path in bodies:
                case.body = bodies[case.path]

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return {"base_url": address, "headers": key, "timeout": 20}

        def after_call(self, response: Any, case: Case) -> None:
            super().after_call(response, case)
            followed[f"{case.method} {case.path}", response.status_code] += 1

        def validate_response(self, response: Any, case: Case, **more: Any) -> None:
            checks = plain.get(case.path[case.path.rindex("/") :], there)
            case.validate_response(response, checks=checks, transport_kwargs=more, recorder=self.recorder)

    Walk.run(settings=settings(BOUNDS, max_examples=WALKS, stateful_step_count=STEPS))
    found = [asked for (asked, status) in followed if asked.startswith("GET") and "{" in asked and status == 200]
    assert found, f"no link was followed to what it names: {followed}"


def hold(operation: APIOperation, send: Any, known: dict[str, str]) -> None:
    """Send requests that fit the document and ones that do not, half of them to what exists."""

    @settings(BOUNDS, max_examples=EXAMPLES)
    @given(case=st.one_of(*(operation.as_strategy(mode) for mode in GenerationMode)), exists=st.booleans())
    def send_one(case: Case, exists: bool) -> None:
        if exists:
            case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
        send(case)

    send_one()
