"""Traces: from a request to the phases of its job, without a secret, and only where there is an endpoint."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from uuid import UUID

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import ValidationError
from sqlalchemy import select

from app.config import Settings
from app.database import Database
from app.jobs.tables import JobRow
from app.tracing import OtlpTracing, Tracing, tracing_of
from tests.app.jobs.factories import read_job
from tests.app.uploads import OCTETS
from tests.conftest import SECRET_KEY, MakeKey, bearer
from tests.worker import networks
from worker.supervisor import Supervisor

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PATIENCE_SECONDS = 20


@dataclass
class Receiver:
    """What takes OTLP over HTTP, as a collector does."""

    url: str
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        return [
            span
            for request in requests
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def wait_for(self, found: Callable[[Span], bool]) -> Span:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for span in self.spans():
                if found(span):
                    return span
            time.sleep(0.02)
        return pytest.fail(f"among {[span.name for span in self.spans()]} it is not")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    bodies: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield Receiver(url, bodies)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(receiver: Receiver, settings: Settings) -> Settings:
    """Those of the other tests, read anew with the endpoint in the environment."""
    return settings.model_copy(update={"otlp_endpoint": receiver.url})


@pytest.fixture
def traced(supervisor: Supervisor) -> Iterator[Supervisor]:
    tracing = tracing_of(supervisor.settings, "lathe-worker")
    yield replace(supervisor, tracing=tracing)
    tracing.close()


def of(span: Span) -> dict[str, str | int]:
    """Its attributes."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def last_job(database: Database) -> UUID:
    with database.session_scope() as session:
        return session.scalars(select(JobRow.id).order_by(JobRow.id.desc()).limit(1)).one()


async def test_a_trace_goes_from_the_request_to_the_phases_of_its_job_and_tells_no_secret(
    client: httpx.AsyncClient, receiver: Receiver, traced: Supervisor, database: Database, make_key: MakeKey
) -> None:
    key = make_key()
    secrets = [key, key.split("_", 2)[2], SECRET_KEY, "swordfish"]
    content, headers = networks.convnet().SerializeToString(), bearer(key) | OCTETS
    model = (await client.post("/v1/models?name=swordfish", content=content, headers=headers)).json()
    traced.run(last_job(database))
    body = {"model_id": model["id"], "recipe": [{"pass": "optimize_graph"}], "budget_seconds": 60}
    sent = bearer(key) | {"traceparent": f"00-{TRACE}-{CALLER}-01", "Idempotency-Key": "swordfish"}
    answer = await client.post("/v1/jobs", json=body, headers=sent)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    traced.run(UUID(job_id))
    await client.get(f"/v1/jobs/{job_id}?surprise=swordfish", headers=bearer(key))
    await client.get("/readyz")

    receiver.wait_for(lambda span: of(span).get("http.response.status_code") == 422)
    attempt = receiver.wait_for(lambda span: of(span).get("lathe.job_id") == job_id)
    spans = [span for span in receiver.spans() if span.trace_id.hex() == TRACE]
    [request] = [span for span in spans if span.parent_span_id.hex() == CALLER]
    assert (request.name, of(request)["http.response.status_code"]) == ("POST /v1/jobs", 202)
    assert (request.kind, attempt.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CONSUMER)
    assert of(request)["lathe.request_id"] == answer.headers["x-request-id"]
    assert attempt.parent_span_id == request.span_id
    assert of(attempt) == {"lathe.job_id": job_id, "lathe.attempt": 1, "lathe.fence": 1, "lathe.outcome": "succeeded"}
    steps = sorted((span for span in spans if span.parent_span_id == attempt.span_id), key=by_begin)
    assert [step.name for step in steps] == ["claim", "fetch", "runner", "publish"]
    assert attempt.start_time_unix_nano == steps[0].start_time_unix_nano, "what it cost to claim is part of it"
    runner = steps[2]
    phases = sorted((span for span in spans if span.parent_span_id == runner.span_id), key=by_begin)
    assert {"preparing", "baseline"} <= {phase.name for phase in phases}
    assert all(before.end_time_unix_nano == after.start_time_unix_nano for before, after in pairwise(phases))
    assert runner.start_time_unix_nano <= phases[0].start_time_unix_nano
    assert phases[-1].end_time_unix_nano <= runner.end_time_unix_nano
    assert not [span.name for span in receiver.spans() if "/readyz" in span.name]
    told = b"".join(receiver.bodies)
    assert [secret for secret in secrets if secret.encode() in told] == []


def by_begin(span: Span) -> int:
    begin: int = span.start_time_unix_nano
    return begin


async def test_what_fails_is_marked_by_its_code_and_in_no_other_words(
    client: httpx.AsyncClient, receiver: Receiver, traced: Supervisor, database: Database, make_key: MakeKey
) -> None:
    await client.post("/v1/models?name=x", content=b"no model", headers=bearer(make_key()) | OCTETS)
    job_id = last_job(database)
    traced.run(job_id)
    error = read_job(database, job_id).error
    assert error is not None
    attempt = receiver.wait_for(lambda span: span.name == "attempt inspect_model")
    assert (of(attempt)["error.type"], attempt.status.code) == (error["code"], attempt.status.STATUS_CODE_ERROR)
    assert error["detail"].encode() not in b"".join(receiver.bodies)


def test_without_an_endpoint_nothing_is_traced(settings: Settings) -> None:
    silent = tracing_of(settings.model_copy(update={"otlp_endpoint": ""}), "lathe-api")
    assert type(silent) is Tracing
    assert type(tracing_of(settings, "lathe-api")) is OtlpTracing


def test_an_endpoint_without_what_sends_traces_is_refused(
    environment: dict[str, str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().otlp_endpoint == receiver.url
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(ValidationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*-e '\.\[tracing\]'"):
        Settings()
