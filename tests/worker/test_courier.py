"""Webhooks on a real receiver: signed, sent again, held up by nobody, and sent nowhere that is inside."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from app.config import Settings
from app.database import Database
from app.jobs import lease
from app.jobs.states import JobState
from app.schema import METADATA
from app.webhooks import outbox, service
from app.webhooks.signing import secret_of
from app.webhooks.tables import DeliveryRow
from tests.app.jobs.factories import add_job
from tests.conftest import SECRET_KEY
from tests.worker.receiving import receiver, status
from worker.courier import Courier


@pytest.fixture
def inner(settings: Settings) -> Settings:
    """Settings under which this machine may be a receiver."""
    own = {"allow_private": True, "allow_http": True, "backoff_seconds": 0.0, "timeout_seconds": 5.0}
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=own)})


def with_webhooks(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=values)})


@contextmanager
def running(*couriers: Courier) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=courier.run, args=[stop]) for courier in couriers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def add_webhook(database: Database, workspace_id: UUID, url: str) -> UUID:
    with database.session_scope() as session:
        return service.create(session, workspace_id, url).id


def end_a_job(database: Database, workspace_id: UUID) -> UUID:
    job_id = add_job(database)
    with database.session_scope() as session:
        assert lease.cancel(session, job_id, workspace_id) is JobState.CANCELLED
    return job_id


def deliveries(database: Database) -> list[DeliveryRow]:
    with database.session_scope() as session:
        return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))


def settled(database: Database) -> bool:
    return all(row.state != "waiting" for row in deliveries(database))


def attempt(courier: Courier, database: Database, settings: Settings) -> str | None:
    """One attempt at the message that is due, as a courier makes it; what the message is then."""
    with database.session_scope() as session:
        taken = outbox.take(session, 60.0)
    assert taken is not None
    outcome = courier.send(taken)
    with database.session_scope() as session:
        own = settings.webhooks
        return outbox.record(
            session, taken, outcome, backoff_seconds=own.backoff_seconds, max_attempts=own.max_attempts
        )


def test_the_end_of_a_job_is_told_and_the_message_verified_by_the_secret_alone(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    with receiver() as receiving, running(Courier(inner, database)):
        webhook_id = add_webhook(database, workspace_id, receiving.url)
        job_id = end_a_job(database, workspace_id)
        wait(lambda: deliveries(database) and settled(database))
    [(headers, body)] = receiving.messages
    secret = secret_of(webhook_id, SECRET_KEY)
    message = Webhook(secret).verify(body, headers)
    assert message["type"] == "job.cancelled"
    assert message["data"] == {
        "job_id": str(job_id),
        "state": "cancelled",
        "verdict": None,
        "error_code": None,
        "links": {
            "job": f"/v1/jobs/{job_id}",
            "report": f"/v1/jobs/{job_id}/report",
            "events": f"/v1/jobs/{job_id}/events",
        },
    }
    assert (headers["host"], headers["content-type"]) == (f"127.0.0.1:{receiving.port}", "application/json")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b"cancelled", b"succeeded"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(UUID(int=1), SECRET_KEY)).verify(body, headers)


def test_what_fails_is_sent_again_under_the_same_id_until_it_is_received(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    codes = iter([500, 429, 404, 200])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status(next(codes))(handler)

    with receiver(answer) as receiving, running(Courier(inner, database)):
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        wait(lambda: deliveries(database) and settled(database))
    assert len(receiving.messages) == 4
    assert len({(headers["webhook-id"], body) for headers, body in receiving.messages}) == 1
    [row] = deliveries(database)
    assert (row.state, row.attempts, row.answer_status, row.problem) == ("delivered", 4, 200, None)


def test_after_the_last_attempt_it_is_given_up_and_said(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    settings = with_webhooks(inner, max_attempts=3)
    with receiver(status(503)) as receiving, capture_logs() as said, running(Courier(settings, database)):
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        wait(lambda: deliveries(database) and settled(database))
    assert len(receiving.messages) == 3
    [row] = deliveries(database)
    assert (row.state, row.attempts, row.problem) == ("given_up", 3, "The answer was 503.")
    failed = [entry for entry in said if entry["event"] == "webhook_failed"]
    assert [(entry["log_level"], entry["state"]) for entry in failed] == [
        ("info", "waiting"),
        ("info", "waiting"),
        ("warning", "given_up"),
    ]


def test_the_waits_double_and_all_of_them_take_about_a_day(settings: Settings) -> None:
    own = settings.webhooks
    waits = [outbox.wait_seconds(own.backoff_seconds, attempt) for attempt in range(1, own.max_attempts)]
    assert all(0.75 * 5 * 2**number <= wait <= 1.25 * 5 * 2**number for number, wait in enumerate(waits))
    # 5 (2^14 - 1) s are 22.8 h, a quarter more or less.
    assert 17 * 3600 <= sum(waits) <= 29 * 3600


def test_a_redirect_is_not_followed(database: Database, inner: Settings, workspace_id: UUID) -> None:
    with receiver() as inside, receiver(status(302, Location=inside.url)) as receiving:
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        assert attempt(Courier(inner, database), database, inner) == "waiting"
        assert (len(receiving.messages), inside.messages) == (1, [])
    [row] = deliveries(database)
    assert (row.answer_status, row.problem) == (302, "The answer was 302. Redirects are not followed.")


def test_a_name_is_resolved_once_and_the_connection_goes_where_that_said(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    """Rebinding: what the name means a moment later is not asked."""
    answers, asked = iter([["127.0.0.1"], ["192.0.2.1"]]), []

    def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return next(answers)

    with receiver() as receiving:
        # A name that no server knows: it can only be reached where the resolver says.
        add_webhook(database, workspace_id, f"http://receiver.invalid:{receiving.port}/hook")
        end_a_job(database, workspace_id)
        assert attempt(Courier(inner, database, resolver), database, inner) == "delivered"
    assert asked == [("receiver.invalid", receiving.port)]
    [(headers, _)] = receiving.messages
    assert headers["host"] == f"receiver.invalid:{receiving.port}"


def test_a_name_that_came_to_mean_an_inner_address_is_sent_nothing(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    settings = with_webhooks(inner, allow_private=False)
    with receiver() as receiving:
        add_webhook(database, workspace_id, f"http://receiver.invalid:{receiving.port}/hook")
        end_a_job(database, workspace_id)
        courier = Courier(settings, database, lambda host, port: ["93.184.215.14", "127.0.0.1"])
        assert attempt(courier, database, settings) == "waiting"
        assert receiving.messages == []
    [row] = deliveries(database)
    assert row.answer_status is None
    assert row.problem == "`receiver.invalid` does not resolve to public addresses alone."


def test_the_next_address_is_tried_where_the_first_does_not_answer(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    with receiver() as receiving:
        add_webhook(database, workspace_id, f"http://receiver.invalid:{receiving.port}/hook")
        end_a_job(database, workspace_id)
        # Nobody listens at that port of the first.
        courier = Courier(inner, database, lambda host, port: ["127.0.0.2", "127.0.0.1"])
        assert attempt(courier, database, inner) == "delivered"


def drip(handler: BaseHTTPRequestHandler) -> None:
    """An answer that never ends, though each byte of it comes soon."""
    for _ in range(3000):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.01)


def say_nothing(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def a_head_without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (drip, "There was no answer within 0.5 s."),
        (say_nothing, "There was no answer within 0.5 s."),
        (a_head_without_end, "The connection failed:"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "The connection failed:"),
    ],
    ids=["drips", "says-nothing", "head-without-end", "no-http"],
)
def test_a_receiver_that_plays_games_is_a_failed_attempt(
    database: Database,
    inner: Settings,
    workspace_id: UUID,
    answer: Callable[[BaseHTTPRequestHandler], None],
    problem: str,
) -> None:
    settings = with_webhooks(inner, timeout_seconds=0.5)
    with receiver(answer) as receiving:
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        assert attempt(Courier(settings, database), database, settings) == "waiting"
    [row] = deliveries(database)
    assert row.problem is not None
    assert row.problem.startswith(problem)


def test_a_body_without_end_is_not_read(database: Database, inner: Settings, workspace_id: UUID) -> None:
    sent: list[int] = []
    cut_off = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(10_000):
                sent.append(handler.wfile.write(b"x" * 100_000))
        except OSError:
            cut_off.set()

    with receiver(answer) as receiving:
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        assert attempt(Courier(inner, database), database, inner) == "delivered"
        wait(cut_off.is_set)
    # What the kernel took on both sides before the connection was closed, of a gigabyte that was to come.
    assert sum(sent) < 50_000_000


def test_a_slow_receiver_holds_up_its_own_messages_alone(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    released = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        released.wait(20)
        status(200)(handler)

    with (
        receiver(answer) as slow,
        receiver() as quick,
        running(Courier(with_webhooks(inner, timeout_seconds=30.0), database)),
    ):
        for url in (slow.url, quick.url):
            add_webhook(database, workspace_id, url)
        for _ in range(12):
            end_a_job(database, workspace_id)
        wait(lambda: len(quick.messages) == 12)
        assert len(slow.messages) == 1
        released.set()
        wait(lambda: settled(database))
    assert len(slow.messages) == 12


def test_two_housekeepers_send_each_message_once(database: Database, inner: Settings, workspace_id: UUID) -> None:
    others = [Courier(inner, database) for _ in range(2)]
    with receiver() as first, receiver() as second:
        for url in (first.url, second.url):
            add_webhook(database, workspace_id, url)
        jobs = {end_a_job(database, workspace_id) for _ in range(15)}
        with running(*others):
            wait(lambda: settled(database))
        for receiving in (first, second):
            assert Counter(job_of(message) for message in receiving.messages) == dict.fromkeys(map(str, jobs), 1)
    ids = [headers["webhook-id"] for receiving in (first, second) for headers, _ in receiving.messages]
    assert len(set(ids)) == 30


def job_of(message: tuple[dict[str, str], bytes]) -> str:
    return str(json.loads(message[1])["data"]["job_id"])


def test_a_housekeeper_that_died_between_sending_and_writing_it_down_is_made_up_for(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    with receiver() as receiving:
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        dead = Courier(inner, database)
        with database.session_scope() as session:
            taken = outbox.take(session, 60.0)
        assert taken is not None
        assert dead.send(taken).problem is None
        # It is gone. While its lease lasts nobody else sends the message.
        with database.session_scope() as session:
            assert outbox.take(session, 60.0) is None
            session.execute(update(DeliveryRow).values(leased_until=DeliveryRow.created_at))
        assert attempt(Courier(inner, database), database, inner) == "delivered"
        first, second = receiving.messages
        assert first[0]["webhook-id"] == second[0]["webhook-id"]
        # Were it not dead but slow, its outcome would come too late to count.
        with database.session_scope() as session:
            late = outbox.Outcome(500, "late")
            assert outbox.record(session, taken, late, backoff_seconds=0.0, max_attempts=3) is None
    assert [row.state for row in deliveries(database)] == ["delivered"]


@contextmanager
def housekeeping(environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The process itself, with settings under which this machine may be a receiver."""
    names = {"ALLOW_PRIVATE": "1", "ALLOW_HTTP": "1", "TIMEOUT_SECONDS": "1", "LEASE_SECONDS": "2"}
    own = {f"LATHE_WEBHOOKS_{name}": value for name, value in names.items()}
    process = subprocess.Popen([sys.executable, "-m", "worker.housekeeping"], env=environment | own)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_a_process_that_is_killed_when_its_message_has_arrived_is_made_up_for_by_the_next(
    database: Database, environment: dict[str, str], workspace_id: UUID
) -> None:
    with receiver() as receiving:
        add_webhook(database, workspace_id, receiving.url)
        end_a_job(database, workspace_id)
        with housekeeping(environment) as first:

            def kill_and_answer(handler: BaseHTTPRequestHandler) -> None:
                first.kill()
                first.wait(20)
                status(204)(handler)

            receiving.answer = kill_and_answer
            wait(lambda: first.poll() is not None)
        receiving.answer = status(204)
        with housekeeping(environment) as second:
            wait(lambda: settled(database))
            assert second.poll() is None
    assert [headers["webhook-id"] for headers, _ in receiving.messages] == [receiving.messages[0][0]["webhook-id"]] * 2
    [row] = deliveries(database)
    assert (row.state, row.attempts) == ("delivered", 2)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context with a certificate for `receiver.invalid`, which this process trusts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    key, pem = tmp_path / "key.pem", tmp_path / "certificate.pem"
    named = ["-subj", "/CN=receiver.invalid", "-addext", "subjectAltName=DNS:receiver.invalid"]
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", str(key), "-out", str(pem)]
    subprocess.run([openssl, *made, *named], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


@pytest.mark.parametrize(
    ("host", "state"), [("receiver.invalid", "delivered"), ("other.invalid", "waiting")], ids=["its-own", "anothers"]
)
def test_tls_is_with_the_name_and_not_with_the_address(
    database: Database, inner: Settings, workspace_id: UUID, certificate: ssl.SSLContext, host: str, state: str
) -> None:
    names: list[str | None] = []
    certificate.sni_callback = lambda _, name, __: names.append(name)
    with receiver(tls=certificate) as receiving:
        add_webhook(database, workspace_id, f"https://{host}:{receiving.port}/hook")
        end_a_job(database, workspace_id)
        courier = Courier(inner, database, lambda host, port: ["127.0.0.1"])
        assert attempt(courier, database, inner) == state
    assert names == [host]
    assert len(receiving.messages) == (state == "delivered")


def test_a_secret_is_neither_in_the_database_nor_in_the_log(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody answers there once it is closed
    with capture_logs() as said:
        webhook_id = add_webhook(database, workspace_id, f"http://127.0.0.1:{port}/hook")
        end_a_job(database, workspace_id)
        attempt(Courier(inner, database), database, inner)
    secret = secret_of(webhook_id, SECRET_KEY).removeprefix("whsec_")
    with database.session_scope() as session:
        tables = (METADATA.tables[name] for name in ("webhooks", "webhook_deliveries", "audit_log"))
        kept = [str(row) for table in tables for row in session.execute(table.select())]
    assert kept
    assert not [line for line in [*map(str, said), *kept] if secret in line]
