"""Webhooks as the API shows them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class WebhookRequest(BaseModel):
    """Where to send messages."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        min_length=1,
        max_length=2000,
        description="An `https` URL whose host resolves to public addresses alone. Redirects are not followed.",
    )


class Webhook(BaseModel):
    """An address that is told of every optimization of the workspace that ends."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="Its id.")
    url: str = Field(description="Where messages are sent.")
    created_at: datetime = Field(description="When it was made.")


class NewWebhook(Webhook):
    """A webhook at the only moment when its secret is shown."""

    secret: str = Field(description="`whsec_...`: what signatures are verified with. It is not shown again.")


class WebhookDelivery(BaseModel):
    """One message to a webhook, and what became of it."""

    id: UUID = Field(description="Its id.")
    message_id: str = Field(description="The header `webhook-id`, which is the same at each attempt.")
    type: str = Field(description="`job.succeeded`, `job.failed`, `job.cancelled`, `job.expired`, or `webhook.test`.")
    job_id: UUID | None = Field(description="The job that it tells of; null: a test.")
    state: Literal["waiting", "delivered", "given_up"] = Field(
        description="`waiting` for its first or next attempt, `delivered`, or `given_up`: the last one failed, or it "
        "waited for two days."
    )
    attempts: int = Field(description="How often it was sent.")
    created_at: datetime = Field(description="When it was written.")
    attempted_at: datetime | None = Field(description="When the last attempt began.")
    next_attempt_at: datetime | None = Field(description="When it is sent next; null: not again.")
    answer_status: int | None = Field(description="The HTTP status of the last answer; null: there was none.")
    problem: str | None = Field(description="Why the last attempt failed; null: it did not.")
