"""Traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: a request, the job that it submits, and what becomes of that job.

Without it nothing of OpenTelemetry is made or sent. What spans tell is named one by one where they are made: neither a
header nor a query, a body, a user's name for a thing or the text of an error is among it. From process to process a
trace goes on by the `traceparent` of W3C Trace Context, which is kept with the job's row.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from app.config import Settings

Attributes = Mapping[str, str | int | float]
Kind = Literal["internal", "server", "consumer"]
# A collector that hangs must not hold up the end of a process, which has ten seconds for it.
EXPORT_SECONDS = 4.0
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_traceparent() -> str | None:
    """The span that this work is part of; None where nothing is traced."""
    return _current.get()


class Span:
    """A span of nothing: what is told of it is forgotten."""

    def note(self, attributes: Attributes) -> None:
        """Tell what is known by now."""

    def fail(self, error_type: str) -> None:
        """Mark it as failed, by the code or the class of what went wrong."""


class Tracing:
    """Traces nothing."""

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since_ns: int | None = None,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """A span around the block: of `parent`, or else of the span around it; begun at `since_ns`, or else now."""
        yield Span()

    def past(self, name: str, begin_ns: int, end_ns: int) -> None:
        """A span that is over, in the one that this work is part of."""

    def close(self) -> None:
        """Send what is left, and no more."""


def tracing_of(settings: Settings, service: str) -> Tracing:
    """What `settings` want; `service` is the name of this process among others, unless OTEL_SERVICE_NAME gives one."""
    return OtlpTracing(os.environ.get("OTEL_SERVICE_NAME") or service) if settings.otlp_endpoint else Tracing()


class OtlpTracing(Tracing):
    """Traces by OTLP over HTTP. Where to, and how many, the variables `OTEL_...` of the SDK say."""

    def __init__(self, service: str) -> None:
        # Loaded where it is wanted: it is an extra, and takes a while.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("lathe")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since_ns: int | None = None,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        began = self._begin(name, parent or _current.get(), since_ns or time.time_ns(), kind, attributes)
        told, token = _OtlpSpan(began), _current.set(self._traceparent(began))
        try:
            yield told
        except Exception as error:
            told.fail(type(error).__name__)
            raise
        finally:
            _current.reset(token)
            began.end()

    def past(self, name: str, begin_ns: int, end_ns: int) -> None:
        self._begin(name, _current.get(), begin_ns, "internal", None).end(end_ns)

    def close(self) -> None:
        self._provider.shutdown()

    def _begin(self, name: str, parent: str | None, begin_ns: int, kind: Kind, attributes: Attributes | None) -> Any:
        from opentelemetry.context import Context  # noqa: PLC0415 - see above
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        return self._tracer.start_span(
            name,
            context=self._propagator.extract({"traceparent": parent or ""}, Context()),
            kind=SpanKind[kind.upper()],
            attributes=attributes,
            start_time=begin_ns,
            record_exception=False,  # its text may hold anything
        )

    def _traceparent(self, span: Any) -> str | None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - see above

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return carrier.get("traceparent")


class _OtlpSpan(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, error_type: str) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - see above

        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)
