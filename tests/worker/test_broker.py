"""What lies in a queue and is no message."""

import json
from collections.abc import Iterator

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
