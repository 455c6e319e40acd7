"""Couriers whose receivers play games, are slow or endless, and housekeepers that die between two steps."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from uuid import UUID

import pytest
from sqlalchemy import update

from app.access.service import ensure_workspace
from app.config import Settings
from app.database import Database
from app.webhooks import outbox
from app.webhooks.outbox import MOST_OF_ONE
from app.webhooks.tables import DeliveryRow
from tests.worker.receiving import receiver, status
from tests.worker.webhooks import add_webhook, attempt, deliveries, end_a_job, running, settled, wait, with_webhooks
from worker.courier import AT_ONCE, Courier


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


def answering_after(released: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    """A receiver's answer, which it holds back."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        released.wait(20)
        status(200)(handler)

    return answer


def test_a_slow_receiver_holds_up_its_own_messages_alone(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    released = threading.Event()
    with (
        receiver(answering_after(released)) as slow,
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


@pytest.mark.long
def test_many_slow_receivers_of_one_workspace_take_no_turn_of_anothers(
    database: Database, inner: Settings, workspace_id: UUID
) -> None:
    """More of them than a courier can wait for at once."""
    released = threading.Event()
    with database.session_scope() as session:
        other = ensure_workspace(session, "another")
    with (
        receiver(answering_after(released)) as slow,
        receiver() as quick,
        running(Courier(with_webhooks(inner, timeout_seconds=30.0), database)),
    ):
        for _ in range(AT_ONCE + 2):
            add_webhook(database, workspace_id, slow.url)
        end_a_job(database, workspace_id)
        wait(lambda: len(slow.messages) == MOST_OF_ONE)
        webhook = add_webhook(database, other, quick.url)
        with database.session_scope() as session:
            for _ in range(3):
                outbox.add_test(session, webhook)
        wait(lambda: len(quick.messages) == 3)
        assert len(slow.messages) == MOST_OF_ONE
        released.set()
        wait(lambda: settled(database))
    assert len(slow.messages) == AT_ONCE + 2


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


@pytest.mark.long
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
