"""`/v1/webhooks`, and what the end of a job writes into the outbox."""

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import httpx
import pytest
from sqlalchemy import func, select, text
from uuid_utils.compat import uuid7

from app.access.keys import SCOPES
from app.access.tables import AuditRow
from app.database import Database
from app.errors import Fault
from app.jobs import lease, reaping
from app.jobs.states import JobKind, JobState
from app.webhooks import outbox, service
from app.webhooks.routes import RESOLVING
from app.webhooks.tables import DeliveryRow, WebhookRow
from tests.app.jobs.factories import add_job
from tests.conftest import MakeKey, bearer

Headers = dict[str, str]
URL = "https://93.184.215.14/hook"  # needs no name server, and is sent nothing: no housekeeping runs
FAULT = Fault(code="runner_crashed", title="It crashed", detail="A word of the user's: secret-name.onnx")


@pytest.fixture
def administrator(make_key: MakeKey) -> Headers:
    return bearer(make_key(scopes=SCOPES))


async def create(client: httpx.AsyncClient, headers: Headers, url: str = URL) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", json={"url": url}, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def deliveries(client: httpx.AsyncClient, headers: Headers, webhook_id: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/webhooks/{webhook_id}/deliveries", headers=headers)
    return list(answer.json()["items"])


async def test_a_secret_is_shown_once(client: httpx.AsyncClient, administrator: Headers) -> None:
    made = await create(client, administrator)
    assert made["secret"].startswith("whsec_")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert (await client.get(f"/v1/webhooks/{made['id']}", headers=administrator)).json() == shown
    assert (await client.get("/v1/webhooks", headers=administrator)).json()["items"] == [shown]
    other = await create(client, administrator)
    assert other["secret"] != made["secret"]


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://169.254.169.254/latest", "http://93.184.215.14/", "x"])
async def test_an_inner_address_is_refused(client: httpx.AsyncClient, administrator: Headers, url: str) -> None:
    answer = await client.post("/v1/webhooks", json={"url": url}, headers=administrator)
    assert (answer.status_code, answer.json()["code"]) == (422, "address_refused")
    assert (await client.get("/v1/webhooks", headers=administrator)).json()["items"] == []


async def test_a_workspace_has_so_many_and_no_more(client: httpx.AsyncClient, administrator: Headers) -> None:
    made = [await create(client, administrator) for _ in range(service.MOST)]
    answer = await client.post("/v1/webhooks", json={"url": URL}, headers=administrator)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")
    assert (await client.delete(f"/v1/webhooks/{made[0]['id']}", headers=administrator)).status_code == 204
    await create(client, administrator)


@pytest.fixture
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], threading.Event]]:
    """What names under `.test` were asked for, of a name server that answers when the event is set."""
    asked, answers, real = list[str](), threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, *rest, **options)
        asked.append(host)
        answers.wait(30)
        return real("93.184.215.14", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("app.webhooks.addresses.RESOLVING_SECONDS", 30.0)
    yield asked, answers
    answers.set()


async def test_a_name_server_that_says_nothing_holds_a_few_threads_and_no_others(
    client: httpx.AsyncClient, administrator: Headers, silent_names: tuple[list[str], threading.Event]
) -> None:
    asked, answers = silent_names
    most = int(RESOLVING.total_tokens)
    await client.get("/healthz")  # whose answer is the first that is held against the document, which is made for it
    async with anyio.create_task_group() as group:
        for number in range(2 * most):
            group.start_soon(create, client, administrator, f"https://{number}.test/hook")
        with anyio.fail_after(10):
            while min(len(asked), RESOLVING.statistics().tasks_waiting) < most:  # noqa: ASYNC110 - neither tells anybody
                await anyio.sleep(0.01)
        assert len(asked) == most
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        answers.set()
    assert len(asked) == 2 * most


async def test_a_workspace_that_may_have_no_more_is_refused_before_a_name_is_asked_for(
    client: httpx.AsyncClient,
    administrator: Headers,
    silent_names: tuple[list[str], threading.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "MOST", 0)
    answer = await client.post("/v1/webhooks", json={"url": "https://one.test/hook"}, headers=administrator)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")
    assert silent_names[0] == []


async def test_a_test_waits_in_the_outbox_and_goes_with_its_webhook(
    client: httpx.AsyncClient, administrator: Headers, database: Database
) -> None:
    made = await create(client, administrator)
    answer = await client.post(f"/v1/webhooks/{made['id']}/test", headers=administrator)
    assert answer.status_code == 202
    assert (answer.json()["type"], answer.json()["state"], answer.json()["job_id"]) == ("webhook.test", "waiting", None)
    assert await deliveries(client, administrator, made["id"]) == [answer.json()]
    assert (await client.delete(f"/v1/webhooks/{made['id']}", headers=administrator)).status_code == 204
    assert (await client.get(f"/v1/webhooks/{made['id']}", headers=administrator)).status_code == 404
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 0
        actions = session.scalars(select(AuditRow.action).order_by(AuditRow.id)).all()
        assert actions == ["key.created", "webhook.created", "webhook.deleted"]


PAST = datetime.now(UTC) - timedelta(hours=1)
RUNNING: dict[str, Any] = {"state": "running", "fence": 1, "attempt": 1, "max_attempts": 1, "lease_expires_at": PAST}


def by_cancel(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        lease.cancel(session, job_id, workspace_id)
    return job_id


def by_expiry(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database, expires_at=PAST)
    with database.session_scope() as session:
        lease.expire(session)
    return job_id


def by_reaping(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database, **RUNNING)
    with database.session_scope() as session:
        reaping.reap(session, 0.0, queue_ttl_seconds=0.0)
    return job_id


def by_reaping_what_was_cancelled(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database, **RUNNING, cancel_requested_at=PAST)
    with database.session_scope() as session:
        reaping.reap(session, 0.0, queue_ttl_seconds=0.0)
    return job_id


def by_success(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "worker:1", 60.0)
        assert claim is not None
        verdict = {"outcome": "met", "note": "secret-name.onnx"}
        assert lease.finish(session, claim, JobState.SUCCEEDED, verdict=verdict)
    return job_id


def by_failure(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "worker:1", 60.0)
        assert claim is not None
        assert lease.finish(session, claim, JobState.FAILED, error=FAULT)
    return job_id


def by_handing_back_what_was_cancelled(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "worker:1", 60.0)
        assert claim is not None
        assert lease.cancel(session, job_id, workspace_id) is JobState.RUNNING
        assert lease.requeue(
            session, claim, wait_seconds=0, spend_attempt=False, reason="stopped", queue_ttl_seconds=0.0
        )
    return job_id


@pytest.mark.parametrize(
    ("end", "state", "verdict", "code"),
    [
        (by_cancel, "cancelled", None, None),
        (by_expiry, "expired", None, None),
        (by_reaping, "failed", None, "worker_lost"),
        (by_reaping_what_was_cancelled, "cancelled", None, None),
        (by_success, "succeeded", "met", None),
        (by_failure, "failed", None, "runner_crashed"),
        (by_handing_back_what_was_cancelled, "cancelled", None, None),
    ],
)
async def test_every_end_of_a_job_is_told_once_to_each_webhook_of_its_workspace(
    client: httpx.AsyncClient,
    administrator: Headers,
    make_key: MakeKey,
    database: Database,
    workspace_id: UUID,
    end: Any,
    state: str,
    verdict: str | None,
    code: str | None,
) -> None:
    mine = [await create(client, administrator) for _ in range(2)]
    await create(client, bearer(make_key(workspace="elsewhere", scopes=SCOPES)))
    job_id = end(database, workspace_id)
    for made in mine:
        [told] = await deliveries(client, administrator, made["id"])
        assert (told["type"], told["job_id"], told["attempts"]) == (f"job.{state}", str(job_id), 0)
    with database.session_scope() as session:
        rows = session.scalars(select(DeliveryRow)).all()
        assert len(rows) == 2
        data = rows[0].payload["data"]
        assert (data["state"], data["verdict"], data["error_code"]) == (state, verdict, code)
        assert "secret-name" not in str(rows[0].payload), "what users named stays inside"


async def test_inspections_are_not_told(
    client: httpx.AsyncClient, administrator: Headers, database: Database, workspace_id: UUID
) -> None:
    made = await create(client, administrator)
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL)
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, workspace_id) is JobState.CANCELLED
    assert await deliveries(client, administrator, made["id"]) == []


def test_a_message_shares_the_fate_of_what_it_tells_of(database: Database, workspace_id: UUID) -> None:
    job_id = add_job(database)
    with database.session_scope() as session:
        service.create(session, workspace_id, URL)
    with pytest.raises(RuntimeError), database.session_scope() as session:
        lease.cancel(session, job_id, workspace_id)
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 1
        raise RuntimeError("the transaction is rolled back")
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 0


def test_a_webhook_that_is_deleted_meanwhile_fails_no_job(database: Database, workspace_id: UUID) -> None:
    """Whoever comes second waits, and sees what the first did."""
    job_id = add_job(database)
    with database.session_scope() as session:
        webhook_id = service.create(session, workspace_id, URL).id
    with database.session_scope() as ending:
        lease.cancel(ending, job_id, workspace_id)
        with pytest.raises(Exception, match="lock timeout"), database.session_scope() as deleting:
            deleting.execute(text("SET LOCAL lock_timeout = '200ms'"))
            service.remove(deleting, workspace_id, webhook_id)
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 1


def test_what_waited_for_two_days_is_given_up_unless_it_is_on_its_way(database: Database, workspace_id: UUID) -> None:
    """However seldom it was tried, and with what was wrong then."""
    now = datetime.now(UTC)
    long_ago, lately = now - timedelta(hours=49), now - timedelta(hours=47)
    rows: list[dict[str, Any]] = [
        {"created_at": long_ago},
        {"created_at": long_ago, "attempts": 1, "problem": "The answer was 503.", "leased_until": lately},
        {"created_at": long_ago, "attempts": 1, "leased_until": now + timedelta(minutes=1)},
        {"created_at": long_ago, "attempts": 1, "state": "delivered"},
        {"created_at": lately, "attempts": 14},
    ]
    with database.session_scope() as session:
        webhook_id = service.create(session, workspace_id, URL).id
        session.add_all(DeliveryRow(id=uuid7(), webhook_id=webhook_id, payload={}, **row) for row in rows)
    with database.session_scope() as session:
        assert outbox.give_up_old(session) == 2
        found = session.execute(select(DeliveryRow.state, DeliveryRow.problem).order_by(DeliveryRow.id)).all()
    given_up = [("given_up", outbox.WAITED_TOO_LONG), ("given_up", "The answer was 503.")]
    assert found == [*given_up, ("waiting", None), ("delivered", None), ("waiting", None)]


def test_what_is_over_is_forgotten_after_a_while_and_what_waits_is_not(database: Database, workspace_id: UUID) -> None:
    with database.session_scope() as session:
        webhook_id = service.create(session, workspace_id, URL).id
        for state in ("waiting", "delivered", "given_up"):
            session.add(DeliveryRow(webhook_id=webhook_id, payload={}, state=state, created_at=PAST))
    with database.session_scope() as session:
        outbox.forget_old(session, 7200.0)
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 3
        outbox.forget_old(session, 60.0)
        assert session.scalars(select(DeliveryRow.state)).all() == ["waiting"]
        assert session.scalar(select(func.count()).select_from(WebhookRow)) == 1
