"""Requests, with retries where they cannot do harm, and problem documents as errors.

Every call of this API may be sent twice: reads by their nature, uploads because the same bytes give the same model, job
submissions because they carry an idempotency key, deletes and cancels because how the second is refused tells of the
first (`LatheApiError.attempt`). The bytes of a resumable upload may not, before it was asked how many of them arrived
(`uploading.py`).
"""

import logging
import math
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity
from pydantic import BaseModel, ValidationError

from app.client.errors import LatheApiError, LatheClientError, NotConfigured, ServiceUnreachable
from app.newer import NEWER

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LONGEST_RETRY_AFTER_SECONDS = 60.0
SHORTEST_RETRY_AFTER_SECONDS = 0.1
CONNECT_SECONDS = 10.0
OUTAGE_SECONDS = 120.0
"""How long a service that answered before may be away, while something is waited for."""
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
PAUSE = tenacity.wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.2)
"""Between attempts, where the service names none."""
UNSENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Faults of the request itself: it would not be sent the next time either."""


ShapeT = TypeVar("ShapeT", bound=BaseModel)
ResultT = TypeVar("ResultT")
log = logging.getLogger("lathe")


def read(shape: type[ShapeT], response: httpx.Response) -> ShapeT:
    """What a response says, in the shape it should have. Raises LatheApiError where it has another."""
    try:
        return shape.model_validate_json(response.content, context=NEWER)
    except ValidationError as error:
        raise LatheApiError.from_response(response) from error


def is_local(url: str) -> bool:
    """Whether a URL names this machine."""
    return urlsplit(url).hostname in LOCAL_HOSTS


def own_connections(url: str) -> dict[str, Any]:
    """How httpx connects to `url`: no proxy reaches this machine's own addresses; and what needs no TLS there does not
    wait for the certificates of authorities, which take 45 ms to read.
    """
    if not is_local(url):
        return {}
    plain = urlsplit(url).scheme == "http"
    return {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True}


def authorization(key: str) -> dict[str, str]:
    """The header that a key is sent in, without the line end that files have behind it.

    Raises NotConfigured, which does not repeat the key: it is a secret.
    """
    sent = key.strip()
    if not (sent and sent.isascii() and sent.isprintable()):
        raise NotConfigured(
            "The key (LATHE_KEY) is blank or holds a character that no header may have: "
            "give it as `lathe keys create` printed it."
        )
    return {"Authorization": f"Bearer {sent}"}


class Transport:
    """One pool of connections to one service, under one key."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float, retry_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        headers = authorization(key) | {"User-Agent": "lathe-client"}
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=_timeout(timeout_seconds),
                **own_connections(self.url),
            )
        except (httpx.InvalidURL, ValueError, ImportError) as error:  # a SOCKS proxy needs a package more
            raise NotConfigured(f"The URL `{url}` cannot be used: {error}") from error

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
        deadline: float = math.inf,
    ) -> httpx.Response:
        """The whole response; `content` makes the body anew for each attempt.

        None begins after the `deadline`, by `time.monotonic()`, and one that the service does not answer ends soon
        after it. Raises LatheApiError, and ServiceUnreachable where no whole answer comes within `retry_seconds` of the
        first failure.
        """
        return self.repeat(
            lambda _: self._whole(
                self._client.build_request(
                    method,
                    path,
                    params=params,
                    json=json,
                    headers=headers,
                    content=content() if content else None,
                    timeout=_timeout(min(self.timeout_seconds, max(deadline - time.monotonic(), CONNECT_SECONDS))),
                )
            ),
            retry_seconds=self._retry_seconds if retry_seconds is None else retry_seconds,
            deadline=deadline,
        )

    @contextmanager
    def open(
        self, path: str, *, headers: Mapping[str, str], retry_seconds: float | None = None
    ) -> Iterator[httpx.Response]:
        """The response to a GET, with its body still to come; only its beginning is retried.

        Raises as `send`; httpx.RequestError where the body breaks off in the caller's hands.
        """
        response = self.repeat(
            lambda _: self._once(self._client.build_request("GET", path, headers=headers)),
            retry_seconds=self._retry_seconds if retry_seconds is None else retry_seconds,
        )
        try:
            yield response
        finally:
            response.close()

    def once(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: Iterator[bytes] | None = None,
        timeout_seconds: float,
    ) -> httpx.Response:
        """The whole response to a request that is sent only once. Raises LatheApiError, httpx.RequestError."""
        return self._whole(
            self._client.build_request(
                method, path, headers=headers, content=content, timeout=_timeout(timeout_seconds)
            )
        )

    def repeat(
        self,
        attempt: Callable[[int], ResultT],
        *,
        attempts: int | None = None,
        retry_seconds: float = math.inf,
        deadline: float = math.inf,
        also: frozenset[int] = frozenset(),
    ) -> ResultT:
        """What `attempt` returns, which is told its number, from 1 on, and repeated where that may help.

        It ends after so many attempts, or seconds since the first failure: a long upload that breaks off has as many
        left as any other request; and at the `deadline`, by `time.monotonic()`. `also` are statuses to repeat at,
        beside those that always are. Raises what the last attempt raised, ServiceUnreachable in place of
        httpx.RequestError; LatheClientError at once for a request that cannot be sent.
        """
        try:
            return self._repeated(attempt, attempts, _Patience(retry_seconds, deadline, RETRIED_STATUSES | also))
        except httpx.UnsupportedProtocol as error:
            raise NotConfigured(f"The URL `{self.url}` cannot be used: {error}") from error
        except httpx.LocalProtocolError as error:
            raise LatheClientError(f"The request to {self.url} cannot be sent: {error}") from error
        except httpx.RequestError as error:
            raise ServiceUnreachable(self.url, error) from error

    def _repeated(self, attempt: Callable[[int], ResultT], attempts: int | None, patience: "_Patience") -> ResultT:
        numbers = count(1)

        def once() -> ResultT:
            number = next(numbers)
            try:
                return attempt(number)
            except LatheApiError as error:
                error.attempt = number
                raise

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(patience.allows_another),
            wait=patience.pause_seconds,
            stop=tenacity.stop_never if attempts is None else tenacity.stop_after_attempt(attempts),
            before_sleep=self._say_again,
            reraise=True,
        )
        return retrying(once)

    def _say_again(self, state: tenacity.RetryCallState) -> None:
        # The first one alone is worth a warning, for the rest say the same.
        level = logging.WARNING if state.attempt_number == 1 else logging.INFO
        error = _failure_of(state)
        log.log(level, "asking %s again: %s", self.url, str(error) or type(error).__name__)

    def _whole(self, request: httpx.Request) -> httpx.Response:
        response = self._once(request)
        try:
            response.read()
        finally:
            response.close()
        return response

    def _once(self, request: httpx.Request) -> httpx.Response:
        response = self._client.send(request, stream=True)
        if response.is_error or response.has_redirect_location:
            try:
                response.read()
                raise LatheApiError.from_response(response)
            finally:
                response.close()
        return response


class _Patience:
    """So many seconds from the first failure on, a deadline, and the statuses at which an answer is asked for again."""

    def __init__(self, seconds: float, deadline: float, statuses: frozenset[int]) -> None:
        self._seconds = seconds
        self._deadline = deadline
        self._statuses = statuses
        self._end: float | None = None

    def allows_another(self, error: BaseException) -> bool:
        """Whether another attempt may help behind this failure, and it is not too late for one."""
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._seconds
        if now >= min(self._end, self._deadline):
            return False
        if isinstance(error, LatheApiError):
            # A pause that is longer than the longest is kept by those who wait as long, not by every call.
            named = error.retry_after_seconds or 0.0
            too_late = named > LONGEST_RETRY_AFTER_SECONDS and now + LONGEST_RETRY_AFTER_SECONDS > self._end
            return error.status in self._statuses and not too_late
        return isinstance(error, httpx.RequestError) and not isinstance(error, UNSENDABLE)

    def pause_seconds(self, state: tenacity.RetryCallState) -> float:
        """What the service asked for, within bounds, or what grows; never beyond the deadline."""
        error = _failure_of(state)
        named = error.retry_after_seconds if isinstance(error, LatheApiError) else None
        if named is None:
            wanted = PAUSE(state)
        else:
            wanted = min(max(named, SHORTEST_RETRY_AFTER_SECONDS), LONGEST_RETRY_AFTER_SECONDS)
        return max(0.0, min(wanted, self._deadline - time.monotonic()))


def _failure_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=CONNECT_SECONDS)
