"""Every error is a problem document, and says no more than it should."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.errors import Problem
from app.recipes.catalogue import CATALOGUE

Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document, checked for its form."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    shown: dict[str, Any] = answer.json()
    Problem.model_validate(shown)
    assert (shown["status"], shown["code"]) == (status, code)
    return shown


async def test_an_unknown_address_is_named(client: httpx.AsyncClient) -> None:
    assert "/v1/nothing" in problem(await client.get("/v1/nothing"), 404, "unknown_route")["detail"]


async def test_the_log_has_of_an_unknown_address_what_no_terminal_obeys(client: httpx.AsyncClient) -> None:
    with capture_logs() as said:
        for path in ("/%1b%5b2J%1b%5d0;x%07", "/" + "a" * 60_000, "/v1/models/x"):
            await client.get(path)
    paths = [entry["path"] for entry in said if entry["event"] == "request"]
    assert paths[0] == "/%1B%5B2J%1B%5D0%3Bx%07"
    assert len(paths[1]) < 400
    assert paths[2] == "/v1/models/x"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/v1/models", "GET, POST"), ("POST", "/healthz", "GET, HEAD"), ("PATCH", "/v1/models/x", "DELETE, GET")],
)
async def test_another_method_learns_which_there_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert allowed in problem(answer, 405, "method_not_allowed")["remedy"]
    assert answer.headers["allow"] == allowed


async def test_every_field_refused_is_located(client: httpx.AsyncClient, writer: Headers) -> None:
    body = {"model_id": "no", "recipe": [{"pass": "melt"}], "surprise": 1}
    shown = problem(await client.post("/v1/jobs", json=body, headers=writer), 422, "validation_failed")
    located = {entry["location"] for entry in shown["errors"]}
    assert {"body.model_id", "body.recipe.0", "body.surprise"} <= located
    assert all(entry["message"] for entry in shown["errors"])


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [([{"pass": "melt"}], ["There is no pass `melt`.", *CATALOGUE]), ([{"ratio": 0.5}], ["`pass` is missing"])],
    ids=["unknown", "none"],
)
async def test_a_pass_that_is_not_there_is_told_in_the_words_of_the_request(
    client: httpx.AsyncClient, writer: Headers, recipe: list[Any], parts: list[str]
) -> None:
    body = {"model_id": "00000000-0000-0000-0000-000000000001", "recipe": recipe}
    shown = problem(await client.post("/v1/jobs", json=body, headers=writer), 422, "validation_failed")
    [error] = shown["errors"]
    assert error["location"] == "body.recipe.0"
    assert [part for part in parts if part not in error["message"]] == []
    assert "pass_" not in shown["detail"]


@pytest.mark.parametrize(
    ("content", "place"),
    [(b'{"model_id": 1,}', "line 1, column "), (b'{\n  "model_id": "x"\n  "recipe": []\n}', "line 3, column 3")],
    ids=["one-line", "several-lines"],
)
async def test_broken_json_is_located_by_line_and_column(
    client: httpx.AsyncClient, writer: Headers, content: bytes, place: str
) -> None:
    answer = await client.post("/v1/jobs", content=content, headers=writer | JSON)
    [error] = problem(answer, 422, "validation_failed")["errors"]
    assert error["location"] == "body"
    assert place in error["message"]


async def test_a_refusal_does_not_send_back_what_it_was_sent(client: httpx.AsyncClient, writer: Headers) -> None:
    body = {"model_id": "x" * 100_000, "y" * 100_000: 1}
    answer = await client.post("/v1/jobs", json=body, headers=writer)
    problem(answer, 422, "validation_failed")
    assert len(answer.content) < 10_000


async def test_many_refused_fields_are_counted(client: httpx.AsyncClient, writer: Headers) -> None:
    body = {f"field{index}": 1 for index in range(500)}
    shown = problem(await client.post("/v1/jobs", json=body, headers=writer), 422, "validation_failed")
    assert len(shown["errors"]) == 20
    assert shown["detail"].startswith("502 fields refused")


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff\xfe", b""], ids=["cut", "deep", "binary", "empty"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, writer: Headers, content: bytes) -> None:
    answer = await client.post("/v1/jobs", content=content, headers=writer | JSON)
    assert answer.status_code in (400, 422)
    problem(answer, answer.status_code, "malformed_request" if answer.status_code == 400 else "validation_failed")


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "counted"])
async def test_a_body_beyond_reason_is_refused(client: httpx.AsyncClient, writer: Headers, announced: bool) -> None:
    content = json.dumps({"model_id": "x" * (2 << 20)}).encode()

    async def pieces() -> Any:
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]

    answer = await client.post("/v1/jobs", content=content if announced else pieces(), headers=writer | JSON)
    problem(answer, 413, "too_large")


async def test_a_query_parameter_that_nobody_knows_is_refused(client: httpx.AsyncClient, reader: Headers) -> None:
    shown = problem(await client.get("/v1/models?stat=ready", headers=reader), 422, "validation_failed")
    assert "`stat`" in shown["detail"]
    assert "cursor, limit, name, status" in shown["remedy"]


async def test_an_id_that_is_none_is_refused(client: httpx.AsyncClient, reader: Headers) -> None:
    shown = problem(await client.get("/v1/models/7", headers=reader), 422, "validation_failed")
    assert shown["errors"][0]["location"] == "path.model_id"


async def test_a_fault_of_ours_tells_nothing_of_the_inside(
    app: FastAPI, client: httpx.AsyncClient, reader: Headers
) -> None:
    class Broken:
        def of_workspace(self, _: object) -> None:
            raise RuntimeError("the password is swordfish")

    working, app.state.database = app.state.database, Broken()
    answer = await client.get("/v1/passes", headers=reader | {"X-Request-Id": "find-me"})
    app.state.database = working
    problem(answer, 500, "internal_error")
    assert "swordfish" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/start.js", 200),
        ("GET", "/docs/assets/swagger-ui.css", 200),
        ("GET", "/docs/assets/nothing", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models", 401),
        ("GET", "/v1/models?surprise=1", 422),
        ("PUT", "/v1/models", 405),
        ("OPTIONS", "/v1/jobs", 405),
        ("POST", "/v1/jobs", 413),
    ],
)
async def test_every_answer_bears_an_id_and_security_headers(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    content = b" " * (2 << 20) if status == 413 else None
    answer = await client.request(method, path, content=content)
    assert answer.status_code == status
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "strict-transport-security" not in answer.headers, "it came without TLS"


async def test_over_https_a_browser_is_told_to_stay_there(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://lathe") as client:
        for path in ("/healthz", "/docs", "/v1/models", "/v1/nothing"):
            answer = await client.get(path)
            assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123", True), ("a b", False), ("x" * 129, False), ("<script>", False)],
    ids=["sane", "space", "long", "markup"],
)
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, given: str, kept: bool) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) == kept
