"""`/v1/webhooks`. All of it takes the scope `admin`: a webhook tells somebody else what happens in the workspace."""

from typing import Annotated, Literal
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Response

from app import links
from app.access.dependencies import Administrator
from app.dependencies import DatabaseDep, SettingsDep
from app.errors import AddressRefused, InvalidCursor, NotFound, TooManyWebhooks
from app.headers import described
from app.paging import Cursor, Limit, Page
from app.problems import responses
from app.webhooks import outbox, service
from app.webhooks.addresses import checked_addresses, read_url
from app.webhooks.schemas import NewWebhook, Webhook, WebhookDelivery, WebhookRequest
from app.webhooks.signing import secret_of

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

# So many names are asked for at once: a name server that says nothing takes no thread from storage.
RESOLVING = CapacityLimiter(4)
WebhookId = Annotated[UUID, Path(description="The webhook.")]
StateFilter = Annotated[
    Literal["waiting", "delivered", "given_up"] | None, Query(description="Only messages in this state.")
]


@router.post(
    "",
    status_code=201,
    response_model=NewWebhook,
    summary="Create a webhook",
    operation_id="create_webhook",
    responses=responses(AddressRefused, TooManyWebhooks, body=True)
    | {
        201: {
            "description": "The webhook, with its secret.",
            "headers": described("Location"),
            "links": links.to("webhook_id", "get_webhook", "list_webhook_deliveries", "test_webhook", "delete_webhook"),
        }
    },
)
async def create_webhook(
    body: WebhookRequest, caller: Administrator, database: DatabaseDep, settings: SettingsDep, response: Response
) -> NewWebhook:
    """Have messages sent when an optimization is over, signed as Standard Webhooks says.

    A message is a POST of JSON: `type` (`job.succeeded`, `job.failed`, `job.cancelled`, `job.expired`), `timestamp`,
    and `data` with `job_id`, `state`, `verdict`, `error_code` and `links`. It counts as received when the answer is 2xx
    and comes within seconds; else it is sent again, later each time, for about a day. It may come more than once, with
    the same `webhook-id`, and in another order than the jobs ended. The answer shows the secret, this once.
    """
    url = read_url(body.url, settings.webhooks)
    async with database.reading_scope() as session:  # before anybody is asked for a name in vain
        await session.run_sync(service.refuse_excess, caller.workspace_id)
    await to_thread.run_sync(checked_addresses, url, settings.webhooks, limiter=RESOLVING)
    async with database.session_scope() as session:
        row = await session.run_sync(service.create, caller.workspace_id, str(url), caller)
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    secret = secret_of(row.id, settings.secret_key.get_secret_value())
    return NewWebhook(id=row.id, url=row.url, created_at=row.created_at, secret=secret)


@router.get(
    "",
    response_model=Page[Webhook],
    summary="List webhooks",
    operation_id="list_webhooks",
    responses=responses(InvalidCursor),
)
async def list_webhooks(
    caller: Administrator, database: DatabaseDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[Webhook]:
    """The workspace's webhooks, newest first."""
    async with database.reading_scope() as session:
        rows, next_cursor = await session.run_sync(
            lambda plain: service.list_page(plain, caller.workspace_id, limit=limit, cursor=cursor)
        )
    return Page(items=[Webhook.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get(
    "/{webhook_id}",
    response_model=Webhook,
    summary="Get a webhook",
    operation_id="get_webhook",
    responses=responses(NotFound),
)
async def get_webhook(webhook_id: WebhookId, caller: Administrator, database: DatabaseDep) -> Webhook:
    """One webhook; its secret was shown when it was made."""
    async with database.reading_scope() as session:
        return Webhook.model_validate(await session.run_sync(service.find, caller.workspace_id, webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    operation_id="delete_webhook",
    responses=responses(NotFound),
)
async def delete_webhook(webhook_id: WebhookId, caller: Administrator, database: DatabaseDep) -> None:
    """Delete a webhook with the messages that wait for it; one that is on its way may still arrive."""
    async with database.session_scope() as session:
        await session.run_sync(service.remove, caller.workspace_id, webhook_id, caller)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    response_model=WebhookDelivery,
    summary="Test a webhook",
    operation_id="test_webhook",
    responses=responses(NotFound),
)
async def test_webhook(webhook_id: WebhookId, caller: Administrator, database: DatabaseDep) -> WebhookDelivery:
    """Send a message of type `webhook.test`; what came of it is among the deliveries soon."""
    async with database.session_scope() as session:
        await session.run_sync(service.find, caller.workspace_id, webhook_id)
        return service.show(await session.run_sync(outbox.add_test, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    response_model=Page[WebhookDelivery],
    summary="List deliveries",
    operation_id="list_webhook_deliveries",
    responses=responses(NotFound, InvalidCursor),
)
async def list_webhook_deliveries(
    webhook_id: WebhookId,
    caller: Administrator,
    database: DatabaseDep,
    state: StateFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[WebhookDelivery]:
    """The messages of a webhook and what became of them, newest first; those that are over are kept for some days."""
    async with database.reading_scope() as session:
        deliveries, next_cursor = await session.run_sync(
            lambda plain: service.list_deliveries(
                plain, caller.workspace_id, webhook_id, state=state, limit=limit, cursor=cursor
            )
        )
    return Page(items=deliveries, next_cursor=next_cursor)
