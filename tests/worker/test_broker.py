"""What lies in a queue and is no message, and answers to messages that are lost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import kombu
import pytest
import redis
from kombu.transport import TRANSPORT_ALIASES, _transport_cache

from app.config import Settings
from app.queue import broker_url, plain_url
from worker.broker import read_patiently

QUEUE = "of-test-broker"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, name, TRANSPORT_ALIASES[name])
    _transport_cache.clear()
    read_patiently()
    yield
    _transport_cache.clear()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(b"\xff no message", id="no text"),
        pytest.param(b"no message", id="no JSON"),
        pytest.param(json.dumps({"body": "no message either"}), id="no properties"),
        pytest.param(json.dumps({"body": "1", "properties": {}}), id="empty properties"),
        pytest.param(json.dumps({"body": "1", "properties": "none"}), id="properties that are text"),
        pytest.param("[1, 2]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param("[" * 100_000, id="nested beyond what Python parses"),
    ],
)
def test_what_is_no_message_is_thrown_away_and_the_next_one_read(settings: Settings, spoilt: bytes | str) -> None:
    url = settings.redis_url.get_secret_value()
    read: list[object] = []
    with redis.Redis.from_url(plain_url(url)) as server, kombu.Connection(broker_url(url)) as connection:
        server.lpush(QUEUE, spoilt)
        queue = kombu.Queue(QUEUE)
        kombu.Producer(connection).publish({"is": "a message"}, routing_key=QUEUE, declare=[queue])
        with kombu.Consumer(connection, [queue], callbacks=[lambda body, message: (read.append(body), message.ack())]):
            while not read:
                connection.drain_events(timeout=5)
        assert read == [{"is": "a message"}]
        assert server.llen(QUEUE) == 0


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("refuses", [False, True], ids=["acknowledged", "rejected"])
def test_an_answer_to_a_message_that_is_lost_costs_no_place(settings: Settings, refuses: bool) -> None:
    """Who takes one message at a time, as a worker does, gets the next one all the same."""
    url = settings.redis_url.get_secret_value()
    read: list[object] = []
    with redis.Redis.from_url(plain_url(url)) as server, kombu.Connection(broker_url(url)) as connection:
        queue = kombu.Queue(QUEUE)
        producer = kombu.Producer(connection)
        for number in range(2):
            producer.publish(number, routing_key=QUEUE, declare=[queue])

        def take(body: object, message: kombu.Message) -> None:
            read.append(body)
            answer = message.reject if refuses else message.ack
            if len(read) == 1:
                with out_of_reach(server), pytest.raises(redis.ConnectionError):
                    answer()
            else:
                answer()

        with kombu.Consumer(connection, [queue], callbacks=[take], prefetch_count=1):
            while len(read) < 2:
                with suppress(redis.ConnectionError):  # the connection that is waited on, which is then made anew
                    connection.drain_events(timeout=5)
    assert read == [0, 1]


@contextmanager
def out_of_reach(server: "redis.Redis[bytes]") -> Iterator[None]:
    """Within, the server takes no connections but this one, and has closed all others."""
    most = server.config_get("maxclients")["maxclients"]
    server.config_set("maxclients", 1)
    server.client_kill_filter(_type="normal", skipme=True)
    yield
    server.config_set("maxclients", most)
