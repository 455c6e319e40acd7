"""Around every request: an id, a bounded body, security headers, a line in the log, figures; and the last resort.

Plain ASGI: nothing here buffers a body, so that uploads, downloads and event streams pass through as they are.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge, TooSlow
from app.field_errors import clip
from app.health.metrics import RECEIVED_BYTES, REQUEST_COUNT, REQUEST_SECONDS, SENT_BYTES
from app.problems import internal_problem, problem_response
from app.surface import surface_of
from app.tracing import Tracing
from app.uploads.protocol import TusLayer, is_upload_path

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Read as streams, with limits of their own.
STREAMED = frozenset({"/v1/models", "/v1/datasets"})
# Polls would drown what matters: they are counted, and logged only when they fail or take long.
READING = frozenset({"GET", "HEAD"})
SLOW_SECONDS = 1.0
# Asked every few seconds by what watches over the service.
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Nothing here is a page, except for what sets a policy of its own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Where it came over TLS, to us or to a proxy that uvicorn trusts (`FORWARDED_ALLOW_IPS`).
HTTPS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}
log = structlog.get_logger()


class Observation:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, application: FastAPI) -> None:
        self._app = app
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        # What goes between dependencies and this layer: see `Request.state`.
        state = scope.setdefault("state", {})
        state["request_id"] = given if SANE_ID.fullmatch(given) else uuid4().hex
        state["headers"] = SECURITY_HEADERS | (HTTPS_HEADERS if scope["scheme"] == "https" else {})
        exchange = _Exchange(state, receive, send)
        route = surface_of(self._application).template(scope["path"]) or "other"
        with (
            structlog.contextvars.bound_contextvars(request_id=exchange.request_id),
            self._trace(scope, route, exchange),
        ):
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except Exception:
                log.exception("request_failed", method=scope["method"], path=_printable(scope["path"]))
                if exchange.status is not None:
                    raise  # the answer has begun: only a broken connection can tell the client
                await internal_problem()(scope, receive, exchange.send)
            finally:
                self._note(scope, route, exchange)

    @contextmanager
    def _trace(self, scope: Scope, route: str, exchange: "_Exchange") -> Iterator[None]:
        """A span that others may be the parents of; what it tells is no more than the log does, without addresses."""
        if route in UNTRACED:
            yield
            return
        tracing: Tracing = self._application.state.tracing
        about = {"http.request.method": scope["method"], "http.route": route, "lathe.request_id": exchange.request_id}
        parent = Headers(scope=scope).get("traceparent")
        name = f"{scope['method']} {route}"
        with tracing.span(name, parent=parent, kind="server", attributes=about) as span:
            try:
                yield
            finally:
                status = exchange.status or 499
                span.note({"http.response.status_code": status})
                if status >= 500:
                    span.fail(str(status))

    def _note(self, scope: Scope, route: str, exchange: "_Exchange") -> None:
        method, status = scope["method"], exchange.status or 499
        REQUEST_COUNT.labels(method, route, str(status)).inc()
        REQUEST_SECONDS.labels(method, route).observe(exchange.began_after_seconds)
        RECEIVED_BYTES.labels(method, route).inc(exchange.received_bytes)
        SENT_BYTES.labels(method, route).inc(exchange.sent_bytes)
        seconds = exchange.began_after_seconds
        if status >= 400 or method not in READING or seconds > SLOW_SECONDS:
            log.info(
                "request",
                method=method,
                path=_printable(scope["path"]),
                status=status,
                ms=round(seconds * 1000, 1),
                sent_bytes=exchange.sent_bytes,
            )


def _printable(path: str) -> str:
    """As the log has it: a stranger's, so neither of any length nor with what a terminal would obey."""
    return clip(quote(path))


class _Exchange:
    """One request on its way in, and its answer on its way out."""

    def __init__(self, state: dict[str, Any], receive: Receive, send: Send) -> None:
        self.request_id = state["request_id"]
        self._state = state
        self.status: int | None = None
        self.received_bytes = self.sent_bytes = 0
        self._receive, self._send = receive, send
        self._started = time.perf_counter()
        self._began: float | None = None

    @property
    def began_after_seconds(self) -> float:
        return (self._began or time.perf_counter()) - self._started

    async def receive(self) -> Message:
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._began = message["status"], time.perf_counter()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in self._state["headers"].items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)


class BodyLimit:
    """Refuses what is no upload and larger than JSON has any reason to be, or takes longer to arrive.

    It is read before anybody asks for the key: else whoever has none could hold connections for as long as he likes.
    """

    def __init__(self, app: ASGIApp, application: FastAPI) -> None:
        self._app = app
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in STREAMED or is_upload_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        most = self._application.state.settings.api.max_body_bytes
        refusal = TooLarge(f"A body here has at most {most} bytes.", remedy="LATHE_API_MAX_BODY_BYTES sets the most.")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isascii() and announced.isdigit() and int(announced) > most:
            await problem_response(refusal)(scope, receive, send)
            return
        seconds = self._application.state.settings.api.slow_upload_grace_seconds
        received, whole, deadline = 0, False, asyncio.get_running_loop().time() + seconds

        async def count() -> Message:
            nonlocal received, whole
            if whole:  # what follows is that the client leaves, whenever it does
                return await receive()
            try:
                async with asyncio.timeout_at(deadline) as waiting:
                    message = await receive()
            except TimeoutError:
                if not waiting.expired():
                    raise
                raise _too_slow(seconds) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > most:
                raise refusal
            return message

        await self._app(scope, count, send)


def _too_slow(seconds: float) -> TooSlow:
    return TooSlow(
        f"The body was not here after {seconds:g} s.",
        remedy="Send it at once.",
        # Or the rest of it would go on trickling into a connection that is kept for the next request.
        headers={"Connection": "close"},
    )


def install(app: FastAPI) -> None:
    """Wrap `app`; the one added last is the outermost."""
    app.add_middleware(TusLayer)
    app.add_middleware(BodyLimit, application=app)
    app.add_middleware(Observation, application=app)
