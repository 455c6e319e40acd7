"""`/docs` works on a network of its own: everything that it loads comes from the service."""

import re

import httpx
import pytest

LOADED = re.compile(r'(?:src|href)="([^"]*)"')


async def test_everything_that_the_page_loads_is_served_here(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    addresses = [address for address in LOADED.findall(page.text) if not address.startswith("data:")]
    kinds = {}
    for address in addresses:
        answer = await client.get(str(page.url.join(address)))
        assert answer.status_code == 200, address
        assert answer.content, address
        kinds[address.rsplit("/", 1)[-1]] = answer.headers["content-type"].split(";")[0]
    assert kinds == {
        "swagger-ui.css": "text/css",
        "swagger-ui-bundle.js": "text/javascript",
        "start.js": "text/javascript",
    }


async def test_the_page_and_its_script_name_no_other_host(client: httpx.AsyncClient) -> None:
    for address in ("/docs", "/docs/start.js"):
        assert "//" not in (await client.get(address)).text.replace("<!DOCTYPE", "")
    started = (await client.get("/docs/start.js")).text
    found = re.search(r'url: "(.*)"', started)
    assert found is not None
    assert (await client.get(f"/{found[1]}")).json()["openapi"].startswith("3.1")


async def test_the_policy_lets_the_page_load_what_it_needs_from_here_alone(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<script(?![^>]*src=)", page.text), "no script in the page itself, which the policy forbids"


@pytest.mark.parametrize("address", ["/", "/healthz", "/v1/nothing", "/openapi.json"])
async def test_what_is_no_page_may_load_nothing(address: str, client: httpx.AsyncClient) -> None:
    policy = (await client.get(address)).headers["content-security-policy"]
    assert policy == "default-src 'none'; frame-ancestors 'none'"


async def test_an_asset_that_is_not_there_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs/assets/nothing.js")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")
