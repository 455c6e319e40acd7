"""Webhooks on a real receiver: signed, sent again, held up by nobody, and sent nowhere that is inside."""

import shutil
import socket
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from app.config import Settings
from app.database import Database
from app.schema import METADATA
from app.webhooks import outbox
from app.webhooks.signing import secret_of
from tests.conftest import SECRET_KEY
from tests.worker.receiving import receiver, status
from tests.worker.webhooks import add_webhook, attempt, deliveries, end_a_job, running, settled, wait, with_webhooks
from worker.courier import Courier


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
