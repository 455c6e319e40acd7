"""What a real API, asked from outside, is said to be."""

from collections.abc import Callable
from importlib.metadata import version

import httpx
import pytest
from fastapi import Request, Response

from app.client.transport import own_connections
from app.diagnosis.surroundings import api
from tests.app.client.conftest import Server, server
from tests.conftest import MakeKey

__all__ = ["server"]  # the fixture


@pytest.fixture
def environment(environment: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """With what a test changes of it."""
    changes: dict[str, str] = getattr(request, "param", {})
    return environment | changes


@pytest.fixture
def url(service_url: str) -> str:
    """Of the API once it answers: to start takes longer than a diagnosis waits."""
    httpx.get(f"{service_url}/healthz", timeout=60, **own_connections(service_url)).raise_for_status()
    return service_url


def test_a_sound_api_of_the_same_version_is_told_so(url: str, make_key: MakeKey) -> None:
    found = api(url, make_key())
    assert [(finding.name, finding.level) for finding in found] == [("api", "ok"), ("key", "ok")], found


@pytest.mark.parametrize(
    ("make_wrong", "status"),
    [
        pytest.param(lambda make_key: "not-a-key", "401", id="no key"),
        pytest.param(lambda make_key: make_key(scopes=("write",)), "403", id="without a scope"),
    ],
)
def test_a_key_that_is_refused_is_a_problem(
    url: str, make_key: MakeKey, make_wrong: Callable[[MakeKey], str], status: str
) -> None:
    _, key = api(url, make_wrong(make_key))
    assert key.level == "problem"
    assert f"refused ({status})" in key.detail


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        pytest.param({"DATABASE_URL": "postgresql+psycopg://lathe:x@127.0.0.1:1/lathe"}, "503", id="no database"),
        pytest.param({"LATHE_LIMITS_REQUESTS_PER_MINUTE": "1"}, "429", id="too many requests"),
    ],
    indirect=["environment"],
)
def test_an_api_that_does_not_get_to_the_request_is_not_said_to_take_the_key(
    url: str, make_key: MakeKey, status: str
) -> None:
    own = make_key()
    for _ in range(2):  # of which one is within the limit
        answers, key = api(url, own)
    assert (answers.level, key.level) == ("ok", "problem")
    assert status in key.detail


@pytest.fixture
def scripted_url(server: Server) -> str:
    """Of a server that answers as the API does, and takes the key `lth_test`."""

    @server.app.get("/")
    def links() -> dict[str, str]:
        return {"version": version("lathe")}

    @server.app.get("/v1/jobs")
    def jobs(request: Request) -> Response:
        return Response(status_code=200 if request.headers.get("authorization") == "Bearer lth_test" else 401)

    return server.start()


@pytest.mark.parametrize(
    ("key", "level"),
    [
        pytest.param("lth_test\r\n", "ok", id="a line end behind it"),
        pytest.param("lth_te\r\nst", "problem", id="one within it"),
        pytest.param(None, "warning", id="none"),
    ],
)
def test_a_key_is_judged_before_it_is_sent_and_never_told(scripted_url: str, key: str | None, level: str) -> None:
    answers, found = api(scripted_url, key)
    assert (answers.level, found.level) == ("ok", level)
    assert "lth_" not in f"{found.detail} {found.remedy}"


def test_an_api_on_this_machine_is_asked_past_a_proxy(scripted_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the discard port
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert [finding.level for finding in api(scripted_url, "lth_test")] == ["ok", "ok"]
