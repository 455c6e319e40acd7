"""Structured logs on standard error."""

import logging
import sys

import structlog


def configure_logs(*, as_json: bool) -> None:
    """Key-value lines for people, JSON lines for machines; library logs come along at warning and above."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def current_request_id() -> str | None:
    """The `X-Request-Id` of the request that this work is done for; None outside of one."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found
