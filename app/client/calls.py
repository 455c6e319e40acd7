"""What every call has in common: where it goes, and what shape comes back."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from app.client.errors import LatheApiError, ServiceUnreachable, WaitTimeout
from app.client.shapes import Page
from app.client.transport import OUTAGE_SECONDS, RETRIED_STATUSES, Transport, read

POLL_SECONDS = 1.0
FIRST_POLL_SECONDS = 0.05
WAIT_SECONDS = 86_400.0
PAGE_ITEMS = 100

ItemT = TypeVar("ItemT", bound=BaseModel)


class Calls:
    """Calls over one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _get(self, shape: type[ItemT], path: str) -> ItemT:
        return read(shape, self._transport.send("GET", path))

    def _look(
        self,
        path: str,
        what: str = "",
        deadline: float = math.inf,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """What GET answers while something is waited for, though the service be away for `OUTAGE_SECONDS`.

        Raises WaitTimeout, which says what did not come, where it is away at the deadline; else as `Transport.send`.
        """
        try:
            return self._transport.send(
                "GET", path, params=params, headers=headers, retry_seconds=OUTAGE_SECONDS, deadline=deadline
            )
        except (LatheApiError, ServiceUnreachable) as error:
            is_away = isinstance(error, ServiceUnreachable) or error.status in RETRIED_STATUSES
            if is_away and time.monotonic() >= deadline:
                raise WaitTimeout(f"Waited long enough: {what}; {error}") from error
            raise

    def _list(self, shape: type[ItemT], path: str, **filters: str | None) -> Iterator[ItemT]:
        stated = {name: value for name, value in filters.items() if value is not None}
        params: dict[str, Any] = {"limit": PAGE_ITEMS, **stated}
        while True:
            response = self._transport.send("GET", path, params=params)
            page = read(Page[shape], response)  # type: ignore[valid-type] # known at run time
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor


def sleep_before(deadline: float, pause: float, what: str) -> None:
    """Sleep, but never past the deadline. Raises WaitTimeout when it has come."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout(f"Waited long enough: {what}.")
    time.sleep(min(pause, left))
