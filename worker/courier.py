"""Empties the outbox of webhooks: beside the rounds of housekeeping, so that no receiver can hold those up."""

import json
import threading
import time
from datetime import UTC, datetime

import httpcore
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.database import Database
from app.errors import AddressRefused
from app.webhooks import outbox
from app.webhooks.addresses import Resolve, checked_addresses, read_url, resolve
from app.webhooks.outbox import Delivery, Outcome
from app.webhooks.signing import headers_of, secret_of
from worker.posting import post

AT_ONCE = 8
POLL_SECONDS = 1.0
GRACE_SECONDS = 3.0
log = structlog.get_logger()


class Courier:
    """Takes messages and sends each in a thread of its own; any number of couriers may run.

    A message is sent again, under the same id, where its courier dies before it wrote down what came of it.
    """

    def __init__(self, settings: Settings, database: Database, resolver: Resolve = resolve) -> None:
        self._settings = settings
        self._database = database
        self._resolver = resolver
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._news = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Messages as they fall due, until `stop` is set; those on their way then have a moment to arrive."""
        while not stop.is_set():
            self._news.clear()
            if not self._free.acquire(timeout=POLL_SECONDS):
                continue
            taken = self._take()
            if taken is None:
                self._free.release()
                self._news.wait(POLL_SECONDS)
            else:
                threading.Thread(target=self._carry, args=[taken], name="lathe-webhook", daemon=True).start()
        deadline = time.monotonic() + GRACE_SECONDS
        for _ in range(AT_ONCE):
            self._free.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _take(self) -> Delivery | None:
        try:
            with self._database.session_scope() as session:
                return outbox.take(session, self._settings.webhooks.lease_seconds)
        except SQLAlchemyError as error:
            log.warning("webhooks_not_read", error=str(error))
        return None

    def _carry(self, taken: Delivery) -> None:
        try:
            self._record(taken, self.send(taken))
        except SQLAlchemyError as error:
            # Sent or not, it is sent again when the lease is over.
            log.warning("webhook_outcome_lost", delivery_id=str(taken.id), error=str(error))
        except Exception:
            log.exception("webhook_broke", delivery_id=str(taken.id))
        finally:
            self._free.release()
            self._news.set()

    def send(self, taken: Delivery) -> Outcome:
        """One attempt. What goes wrong is part of the outcome, without what the receiver said."""
        settings = self._settings.webhooks
        deadline = time.monotonic() + settings.timeout_seconds
        secret = secret_of(taken.webhook_id, self._settings.secret_key.get_secret_value())
        body = json.dumps(taken.payload, separators=(",", ":"), sort_keys=True)
        headers = {"Content-Type": "application/json", "User-Agent": "lathe-webhooks"}
        headers |= headers_of(taken.id, secret, body, datetime.now(UTC))
        try:
            url = read_url(taken.url, settings)
            status = post(url, checked_addresses(url, settings, self._resolver), headers, body.encode(), deadline)
        except AddressRefused as refused:
            return Outcome(None, refused.detail)
        except httpcore.TimeoutException:
            return Outcome(None, f"There was no answer within {settings.timeout_seconds:g} s.")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Outcome(None, f"The connection failed: {error}")
        if 200 <= status < 300:
            return Outcome(status, None)
        followed = " Redirects are not followed." if 300 <= status < 400 else ""
        return Outcome(status, f"The answer was {status}.{followed}")

    def _record(self, taken: Delivery, outcome: Outcome) -> None:
        settings = self._settings.webhooks
        with self._database.session_scope() as session:
            state = outbox.record(
                session,
                taken,
                outcome,
                backoff_seconds=settings.backoff_seconds,
                max_attempts=settings.max_attempts,
            )
        if outcome.problem is not None:
            told = log.warning if state == "given_up" else log.info
            told("webhook_failed", delivery_id=str(taken.id), attempt=taken.attempt, state=state, why=outcome.problem)
