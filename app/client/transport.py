"""Requests, with retries where they cannot do harm, and problem documents as errors.

Every call of this API may be sent twice: reads and deletes by their nature, uploads because the same bytes give the
same model, job submissions because they carry an idempotency key, and a second cancel asks for nothing new.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from app.client.errors import LatheApiError, NotConfigured, ServiceUnreachable

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LONGEST_RETRY_AFTER_SECONDS = 60.0
SHORTEST_RETRY_AFTER_SECONDS = 0.1
CONNECT_SECONDS = 10.0
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


ShapeT = TypeVar("ShapeT", bound=BaseModel)


def read(shape: type[ShapeT], response: httpx.Response) -> ShapeT:
    """What a response says, in the shape it should have. Raises LatheApiError where it has another."""
    try:
        return shape.model_validate_json(response.content)
    except ValidationError as error:
        raise LatheApiError.from_response(response) from error


def is_local(url: str) -> bool:
    """Whether a URL names this machine."""
    return urlsplit(url).hostname in LOCAL_HOSTS


class Transport:
    """One pool of connections to one service, under one key."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float, retry_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._retry_seconds = retry_seconds
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}", "User-Agent": "lathe-client"},
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
                trust_env=not is_local(self.url),  # a proxy cannot reach this machine's own addresses
            )
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
            raise NotConfigured(f"The URL `{url}` or the key cannot be used: {error}") from error

    def close(self) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        retry_seconds: float | None = None,
    ) -> httpx.Response:
        """The whole response; `content` makes the body anew for each attempt.

        Raises LatheApiError, and ServiceUnreachable after `retry_seconds` without an answer.
        """
        with self.open(
            method, path, params=params, json=json, headers=headers, content=content, retry_seconds=retry_seconds
        ) as response:
            try:
                response.read()
            except httpx.TransportError as error:
                raise ServiceUnreachable(self.url, error) from error
            return response

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        retry_seconds: float | None = None,
    ) -> Iterator[httpx.Response]:
        """The response with its body still to come; only its beginning is retried.

        Raises as `send`; httpx.TransportError where the body breaks off in the caller's hands.
        """
        patience = self._retry_seconds if retry_seconds is None else retry_seconds
        response = self._begin(
            lambda: self._client.build_request(
                method, path, params=params, json=json, headers=headers, content=content() if content else None
            ),
            patience,
        )
        try:
            yield response
        finally:
            response.close()

    def _begin(self, build: Callable[[], httpx.Request], retry_seconds: float) -> httpx.Response:
        try:
            for attempt in stamina.retry_context(
                on=_wait_before_retry, attempts=None, timeout=retry_seconds, wait_initial=0.1, wait_jitter=0.2
            ):
                with attempt:
                    return self._once(build())
        except httpx.UnsupportedProtocol as error:
            raise NotConfigured(f"The URL `{self.url}` cannot be used: {error}") from error
        except httpx.TransportError as error:
            raise ServiceUnreachable(self.url, error) from error
        raise ServiceUnreachable(self.url, httpx.PoolTimeout("no attempt was made"))

    def _once(self, request: httpx.Request) -> httpx.Response:
        response = self._client.send(request, stream=True)
        if response.is_error or response.has_redirect_location:
            try:
                response.read()
                raise LatheApiError.from_response(response)
            finally:
                response.close()
        return response


def _wait_before_retry(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds where the service names them."""
    if isinstance(error, LatheApiError):
        if error.status not in RETRIED_STATUSES:
            return False
        wait = error.retry_after_seconds
        if wait is None:
            return True
        return wait <= LONGEST_RETRY_AFTER_SECONDS and max(wait, SHORTEST_RETRY_AFTER_SECONDS)
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
