"""The OpenAPI document: complete enough that nobody has to read the code."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI

from app.access.keys import SCOPES
from app.config import Settings
from app.datasets.inspection import DatasetInspection
from app.datasets.schemas import Dataset
from app.errors import Conflict, LatheError, Unprocessable
from app.main import create_app
from app.models.inspection import ModelInspection
from app.models.schemas import Model
from app.problems import MEDIA_TYPE
from tests.app.documented import undocumented_headers
from tests.app.uploads import OCTETS

Json = dict[str, Any]
# Answers to what is no operation's request; and what is raised by narrower names alone.
OF_NO_OPERATION = {"unknown_route", "method_not_allowed", "head_too_large", Conflict.code, Unprocessable.code}
OPEN = {"get_links", "get_health", "get_readiness", "get_metrics"}
EXPECTED = {
    "POST /v1/models": "upload_model",
    "GET /v1/models": "list_models",
    "GET /v1/models/{model_id}": "get_model",
    "DELETE /v1/models/{model_id}": "delete_model",
    "GET /v1/models/{model_id}/content": "get_model_content",
    "POST /v1/datasets": "upload_dataset",
    "GET /v1/datasets": "list_datasets",
    "GET /v1/datasets/{dataset_id}": "get_dataset",
    "DELETE /v1/datasets/{dataset_id}": "delete_dataset",
    "OPTIONS /v1/uploads": "get_upload_options",
    "POST /v1/uploads": "create_upload",
    "HEAD /v1/uploads/{upload_id}": "get_upload",
    "PATCH /v1/uploads/{upload_id}": "append_to_upload",
    "DELETE /v1/uploads/{upload_id}": "delete_upload",
    "GET /v1/passes": "list_passes",
    "POST /v1/jobs": "submit_job",
    "GET /v1/jobs": "list_jobs",
    "GET /v1/jobs/{job_id}": "get_job",
    "POST /v1/jobs/{job_id}/cancel": "cancel_job",
    "POST /v1/jobs/{job_id}/promote": "promote_artifact",
    "GET /v1/jobs/{job_id}/events": "get_events",
    "GET /v1/jobs/{job_id}/report": "get_report",
    "GET /v1/audit": "list_audit",
    "POST /v1/webhooks": "create_webhook",
    "GET /v1/webhooks": "list_webhooks",
    "GET /v1/webhooks/{webhook_id}": "get_webhook",
    "DELETE /v1/webhooks/{webhook_id}": "delete_webhook",
    "POST /v1/webhooks/{webhook_id}/test": "test_webhook",
    "GET /v1/webhooks/{webhook_id}/deliveries": "list_webhook_deliveries",
    "GET /v1/artifacts/{artifact_id}": "get_artifact",
    "DELETE /v1/artifacts/{artifact_id}": "delete_artifact",
    "GET /v1/artifacts/{artifact_id}/content": "get_artifact_content",
    "GET /": "get_links",
    "GET /healthz": "get_health",
    "GET /readyz": "get_readiness",
    "GET /metrics": "get_metrics",
}


@pytest.fixture(scope="module")
def document() -> Json:
    settings = Settings(
        database_url="postgresql+psycopg://nowhere/lathe",
        redis_url="redis://nowhere",
        storage_url="file:///nowhere",
        embedded=True,
    )
    return create_app(settings).openapi()


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_is_valid_openapi(document: Json) -> None:
    OpenAPI.model_validate(document)


def test_the_operations_are_those_of_the_design(document: Json) -> None:
    assert {address: operation["operationId"] for address, operation in operations(document)} == EXPECTED


def test_every_operation_is_introduced(document: Json) -> None:
    for address, operation in operations(document):
        assert operation.get("summary"), address
        assert operation.get("description"), address
        assert len(operation.get("tags", [])) == 1, address


def test_every_operation_asks_for_a_key_except_health(document: Json) -> None:
    assert list(document["components"]["securitySchemes"]) == ["HTTPBearer"]
    for address, operation in operations(document):
        wants_key = bool(operation.get("security"))
        assert wants_key != (operation["operationId"] in OPEN), address
        assert wants_key == ({"401", "403"} <= set(operation["responses"])), address


def test_every_error_is_a_problem_with_its_codes(document: Json) -> None:
    known = {error.code for error in every_error(LatheError)}
    for address, operation in operations(document):
        assert {"422", "500", "503"} <= set(operation["responses"]), address
        for status, response in operation["responses"].items():
            if int(status) < 400 or (address, status) == ("GET /readyz", "503"):
                continue
            assert list(response["content"]) == [MEDIA_TYPE], (address, status)
            content = response["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert set(content["examples"]) <= known
            for code, example in content["examples"].items():
                assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))


def every_error(kind: type[LatheError]) -> Iterator[type[LatheError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


def test_every_error_is_documented_where_it_is_answered(document: Json) -> None:
    text = json.dumps(document)
    codes = {error.code for error in every_error(LatheError) if error.__module__.startswith("app.")}
    assert {code for code in codes if f"`{code}`" not in text} <= OF_NO_OPERATION


def test_what_has_an_id_may_not_be_found(document: Json) -> None:
    for address, operation in operations(document):
        assert ("{" in address) <= ("404" in operation["responses"]), address


def test_every_parameter_is_described(document: Json) -> None:
    for address, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (address, parameter["name"])


def test_every_field_is_described(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, definition in schema.get("properties", {}).items():
            # Missing too where it is word for word that of the schema referred to: pydantic leaves it out then.
            assert definition.get("description"), f"{name}.{field}"


# Beside these, every operation that asks for a key says so in `WWW-Authenticate`, and 503 bears `Retry-After`.
OF_CONTENT = {
    "200": {"ETag", "Accept-Ranges", "Content-Disposition", "Content-Digest"},
    "206": {"ETag", "Accept-Ranges", "Content-Disposition", "Content-Range", "Repr-Digest"},
    "304": {"ETag", "Accept-Ranges", "Content-Disposition", "Content-Digest"},
    "416": {"Content-Range"},
}
HEADERS = {
    "upload_model": {"200": {"Location"}, "201": {"Location"}},
    "upload_dataset": {"200": {"Location"}, "201": {"Location"}},
    "get_upload_options": {"204": {"Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"}},
    "create_upload": {"201": {"Location", "Upload-Offset", "Upload-Expires", "Upload-Result"}, "412": {"Tus-Version"}},
    "get_upload": {
        "200": {"Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires", "Upload-Result"},
        "412": {"Tus-Version"},
    },
    "append_to_upload": {
        "204": {"Upload-Offset", "Upload-Expires", "Upload-Result"},
        "409": {"Retry-After"},
        "412": {"Tus-Version"},
    },
    "delete_upload": {"412": {"Tus-Version"}},
    "get_model_content": OF_CONTENT,
    "get_artifact_content": OF_CONTENT,
    "submit_job": {"202": {"Location", "ETag", "Retry-After"}, "409": {"Retry-After"}},
    "get_job": {"200": {"ETag", "Retry-After"}, "304": {"ETag", "Retry-After"}},
    "cancel_job": {"202": {"ETag", "Retry-After"}},
    "promote_artifact": {"200": {"ETag"}},
    "create_webhook": {"201": {"Location"}},
}


def test_the_headers_that_clients_act_on_are_documented(document: Json) -> None:
    for address, operation in operations(document):
        expected = dict(HEADERS.get(operation["operationId"], {}))
        if operation["operationId"] not in OPEN:
            expected["401"] = {"WWW-Authenticate"}
            expected["429"] = {"Retry-After", "RateLimit", "RateLimit-Policy"}
        if operation["operationId"] != "get_readiness":  # which answers 503 with what it found
            expected["503"] = {"Retry-After"}
        found = {status: answer["headers"] for status, answer in operation["responses"].items() if "headers" in answer}
        assert {status: set(headers) for status, headers in found.items()} == expected, address
        assert all(header["description"] for headers in found.values() for header in headers.values()), address


async def test_an_answer_with_a_header_that_is_not_documented_is_found(
    app: FastAPI, client: httpx.AsyncClient, writer: dict[str, str]
) -> None:
    """What holds every answer of the other tests against the document."""
    answer = await client.post("/v1/models?name=x", content=b"bytes", headers=writer | OCTETS)
    assert undocumented_headers(app, answer) == set()
    answer.headers["X-News"] = "1"
    assert undocumented_headers(app, answer) == {"x-news"}


def test_every_body_refuses_unknown_fields(document: Json) -> None:
    for address, operation in operations(document):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/json":
                for name in reachable(document, content["schema"]):
                    schema = document["components"]["schemas"][name]
                    if schema["type"] == "object":
                        assert schema.get("additionalProperties") is False, (address, name)


def reachable(document: Json, schema: Any) -> set[str]:
    """Names of the component schemas that a schema refers to, directly or not."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(document["components"]["schemas"][name])
            waiting += part.values()
    return found


def test_uploads_are_documented_as_bytes(document: Json) -> None:
    for address in ("/v1/models", "/v1/datasets"):
        body = document["paths"][address]["post"]["requestBody"]
        assert body["required"]
        assert "application/octet-stream" in body["content"]
        assert all(content["schema"]["format"] == "binary" for content in body["content"].values())


def answered_types(document: Json, address: str, method: str, status: str) -> set[str]:
    return set(document["paths"][address][method]["responses"][status].get("content", {}))


def test_an_answer_without_a_body_is_documented_without_one(document: Json) -> None:
    assert answered_types(document, "/v1/uploads", "post", "201") == set()
    assert answered_types(document, "/v1/uploads/{upload_id}", "head", "200") == set()


@pytest.mark.parametrize("status", ["200", "206"])
def test_downloads_are_documented_with_every_type_that_they_have(document: Json, status: str) -> None:
    models = {"application/octet-stream", "application/x-tar"}
    assert answered_types(document, "/v1/models/{model_id}/content", "get", status) == models
    delivered = models | {"application/json", "image/png", "image/svg+xml"}
    assert answered_types(document, "/v1/artifacts/{artifact_id}/content", "get", status) == delivered


def test_everything_that_inspection_finds_is_shown() -> None:
    assert set(ModelInspection.model_fields) < set(Model.model_fields)
    assert set(DatasetInspection.model_fields) < set(Dataset.model_fields)


def test_the_scopes_are_those_that_routes_ask_for() -> None:
    assert set(SCOPES) == {"read", "write", "admin"}
