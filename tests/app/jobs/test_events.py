"""`/v1/jobs/{id}/events` as a client meets it."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.access import keys
from app.access.service import revoke_key
from app.database import Database
from app.jobs import lease
from app.jobs.lease import Progress
from app.jobs.states import JobState
from app.jobs.streams import OpenStreams
from tests.app.jobs.factories import add_job, read_job, submit
from tests.live_api import LiveApi

pytestmark = pytest.mark.anyio
Headers = dict[str, str]


@pytest.mark.parametrize("last", ["9223372036854775808", "79449348157970661848", "-1", "x"])
async def test_an_event_that_cannot_be_is_refused(client: httpx.AsyncClient, writer: Headers, last: str) -> None:
    answer = await client.get(f"/v1/jobs/{uuid4()}/events", headers=writer | {"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def parse_stream(content: str) -> list[dict[str, str]]:
    """Server-sent events as dictionaries of their fields."""
    blocks = [block for block in content.replace("\r\n", "\n").split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def run_to_its_end(database: Database, job_id: UUID, messages: int) -> None:
    def run() -> None:
        with database.session_scope() as session:
            held = lease.claim(session, job_id, "test", 45.0)
            assert held is not None
        for number in range(messages):
            with database.session_scope() as session:
                lease.record(session, held, Progress(), [{"type": "log", "message": str(number)}])
        with database.session_scope() as session:
            lease.finish(session, held, JobState.SUCCEEDED)

    await asyncio.to_thread(run)


async def test_a_stream_brings_every_event_once_and_ends_with_the_job(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database
) -> None:
    job_id = UUID((await submit(client, body, writer))["id"])
    stream, _ = await asyncio.gather(
        client.get(f"/v1/jobs/{job_id}/events", headers=writer, timeout=30), run_to_its_end(database, job_id, 20)
    )
    events = parse_stream(stream.text)
    assert stream.headers["content-type"].startswith("text/event-stream")
    ids = [int(event["id"]) for event in events]
    assert ids == sorted(set(ids)) and len(ids) == 22
    assert [json.loads(events[at]["data"])["data"]["state"] for at in (0, -1)] == ["running", "succeeded"]

    middle = {"Last-Event-ID": events[9]["id"]}
    resumed = await client.get(f"/v1/jobs/{job_id}/events", headers=writer | middle, timeout=30)
    assert parse_stream(resumed.text) == events[10:]


@contextmanager
def a_stream(live_api: LiveApi, database: Database, writer: Headers) -> Iterator[Iterator[str]]:
    """The lines of one of a running job, behind the first."""
    job_id = add_job(database)
    with database.session_scope() as session:
        assert lease.claim(session, job_id, "test", 45.0) is not None
    with live_api.client() as client, client.stream("GET", f"/v1/jobs/{job_id}/events", headers=writer) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("id: ")
        yield lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_a_stream_ends_whole_when_the_api_stops(
    number: signal.Signals, live_api: LiveApi, database: Database, writer: Headers
) -> None:
    """A client tells an end from a connection that broke; httpx raises where the last chunk is missing."""
    with a_stream(live_api, database, writer) as lines:
        live_api.process.send_signal(number)
        assert [line for line in lines if line.startswith("data: ")]
    live_api.process.wait(timeout=20)


async def test_events_are_a_list_where_json_is_asked_for(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, database: Database
) -> None:
    job_id = UUID((await submit(client, body, writer))["id"])
    await run_to_its_end(database, job_id, 3)
    headers = writer | {"Accept": "application/json"}
    page = (await client.get(f"/v1/jobs/{job_id}/events", params={"limit": 2}, headers=headers)).json()
    assert [event["type"] for event in page["items"]] == ["state", "log"]
    rest = (await client.get(f"/v1/jobs/{job_id}/events", params={"after": page["next_after"]}, headers=headers)).json()
    assert [event["type"] for event in rest["items"]] == ["log", "log", "state"]


async def test_large_events_come_on_pages_of_their_own(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    writer: Headers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.jobs.service.MAX_PAGE_BYTES", 1)
    job_id = UUID((await submit(client, body, writer))["id"])
    await run_to_its_end(database, job_id, 2)
    seen, after, headers = [], 0, writer | {"Accept": "application/json"}
    while page := (await client.get(f"/v1/jobs/{job_id}/events", params={"after": after}, headers=headers)).json()[
        "items"
    ]:
        assert len(page) == 1
        seen.append(page[0]["type"])
        after = page[0]["id"]
    assert seen == ["state", "log", "log", "state"]
    stream = await client.get(f"/v1/jobs/{job_id}/events", headers=writer, timeout=30)
    assert len(parse_stream(stream.text)) == 4


async def test_a_workspace_follows_no_more_jobs_at_once_than_it_may(
    client: httpx.AsyncClient, body: dict[str, Any], writer: Headers, stranger: Headers, database: Database
) -> None:
    job_id = UUID((await submit(client, body, writer))["id"])
    streams: OpenStreams = client._transport.app.state.open_streams  # type: ignore[attr-defined]
    workspace_id = read_job(database, job_id).workspace_id
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(streams.counted(workspace_id))
        refused = await client.get(f"/v1/jobs/{job_id}/events", headers=writer)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["Retry-After"] == "5"
        # As JSON nothing stays open.
        listed = await client.get(f"/v1/jobs/{job_id}/events", headers=writer | {"Accept": "application/json"})
        assert listed.status_code == 200
    stream, _ = await asyncio.gather(
        client.get(f"/v1/jobs/{job_id}/events", headers=writer, timeout=30), run_to_its_end(database, job_id, 1)
    )
    assert stream.status_code == 200


def test_a_stream_ends_with_the_key_that_opened_it(live_api: LiveApi, database: Database, writer: Headers) -> None:
    prefix, _ = keys.split(writer["Authorization"].removeprefix("Bearer ")) or ("", "")
    with a_stream(live_api, database, writer) as lines:
        with database.session_scope() as session:
            assert revoke_key(session, prefix)
        assert [line for line in lines if line.startswith("data: ")]
