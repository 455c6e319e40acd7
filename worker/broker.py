"""Redis as Celery reads it, by a worker that outlives whatever lies in a queue.

kombu reads a message outside of what it catches: one that is none would end the process, and take its job with it. And
it counts a message whose acknowledgement did not arrive as one at work for ever: a worker, which asks for the next only
when it has acknowledged the last, would never ask again, and look alive.
"""

from queue import Empty
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis, virtual

log = structlog.get_logger()
LONGEST_WORDS = 200


class QoS(redis.QoS):  # type: ignore[misc] # kombu has no types
    """Messages at work. One is done with whether or not Redis hears of it: what it keeps comes back, and only wakes."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)


class Channel(redis.Channel):  # type: ignore[misc] # as above
    """A channel that throws away what cannot be read as a message. Nothing is lost with it: messages only wake."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("no_message", error=f"{type(error).__name__}: {error}"[:LONGEST_WORDS])
            raise Empty from error


class Transport(redis.Transport):  # type: ignore[misc] # as above
    """The same behind a connection."""

    Channel = Channel


def read_patiently() -> None:
    """Have every connection of this process read so."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
