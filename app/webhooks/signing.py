"""Secrets and signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
from datetime import datetime
from uuid import UUID

from standardwebhooks import Webhook


def secret_of(webhook_id: UUID, secret_key: str) -> str:
    """`whsec_...`: 256 bits derived from the service's own key, so that no table holds what a forger would need.

    The message cannot be the secret of an API key, whose hash has the same key: those have no colon.
    """
    derived = hmac.digest(secret_key.encode(), f"webhook:{webhook_id}".encode(), hashlib.sha256)
    return f"whsec_{base64.b64encode(derived).decode()}"


def message_id(delivery_id: UUID) -> str:
    """The `webhook-id`: the same at each attempt, so that a receiver can tell what it has seen."""
    return f"msg_{delivery_id.hex}"


def headers_of(delivery_id: UUID, secret: str, body: str, now: datetime) -> dict[str, str]:
    """The three headers that a receiver verifies. `now` is aware and in UTC."""
    identity = message_id(delivery_id)
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(identity, now, body),
    }
