"""Every error of the API as an RFC 9457 problem document, and as the documentation of the routes that give it."""

from collections import defaultdict
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.answers import JsonLine
from app.errors import (
    LatheError,
    MissingScope,
    NotFound,
    Problem,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
)
from app.field_errors import clip, located
from app.headers import described
from app.surface import surface_of

MEDIA_TYPE = "application/problem+json"
MAX_FIELD_ERRORS = 20
log = structlog.get_logger()


class MalformedRequest(LatheError):
    status, code, title = 400, "malformed_request", "The request cannot be read"


class UnknownRoute(NotFound):
    code, title = "unknown_route", "There is nothing at this address"


class MethodNotAllowed(LatheError):
    status, code, title = 405, "method_not_allowed", "This address does not answer that method"


def responses(*errors: type[LatheError], body: bool = False, key: bool = True) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may raise `errors`, beside what every route may answer.

    `body`: it takes JSON, which may be too large, or take too long. `key`: it asks for an API key.
    """
    every: list[type[LatheError]] = [*errors, ValidationFailed, Unavailable, LatheError]
    every += [Unauthenticated, MissingScope, TooManyRequests] if key else []
    every += [TooLarge, TooSlow, MalformedRequest] if body else []
    by_status: dict[int, dict[str, type[LatheError]]] = defaultdict(dict)
    for error in every:
        by_status[error.status][error.code] = error
    return {status: _document(list(by_status[status].values())) for status in sorted(by_status)}


def _document(errors: list[type[LatheError]]) -> dict[str, Any]:
    sent = described(*dict.fromkeys(name for error in errors for name in error.sends))
    return {
        "description": "; ".join(f"`{error.code}`: {error.title}" for error in errors) + ".",
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {
                    error.code: {
                        "summary": error.title,
                        "value": error("What happened here.").problem().model_dump(exclude_none=True),
                    }
                    for error in errors
                },
            }
        },
    } | ({"headers": sent} if sent else {})


def problem_response(error: LatheError) -> Response:
    return _respond(error.problem(), error.headers)


def _respond(problem: Problem, headers: dict[str, str]) -> Response:
    return JsonLine(problem.model_dump(exclude_none=True), problem.status, {**headers}, MEDIA_TYPE)


def internal_problem() -> Response:
    """The answer to a fault of ours: it says nothing of what is inside."""
    return problem_response(
        LatheError(
            "The service failed to answer; the failure is in its log.", remedy="Try again; report it if it stays."
        )
    )


def install(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem document."""
    app.add_exception_handler(LatheError, _on_lathe_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for unavailable in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(unavailable, _on_database_error)


async def _on_lathe_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, LatheError):
        raise error
    if error.status >= 500:
        log.warning("refused", code=error.code, detail=error.detail, cause=str(error.__cause__ or ""))
    return problem_response(error)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    fields = [located(entry, error.body) for entry in found[:MAX_FIELD_ERRORS]]
    more = f" and {len(found) - len(fields)} more" if len(found) > len(fields) else ""
    named = "; ".join(f"{field['location']}: {field['message']}" for field in fields[:3])
    problem = ValidationFailed(
        f"{len(found)} field{'s' if len(found) != 1 else ''} refused: {named}{more}.",
        remedy="`errors` lists the fields; /openapi.json has the schema.",
    ).problem()
    problem.errors = fields
    return _respond(problem, {})


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI refuse by themselves."""
    if not isinstance(error, HTTPException):
        raise error
    # FastAPI wraps whatever goes wrong while it reads the body.
    if isinstance(error.__cause__, LatheError):
        return problem_response(error.__cause__)
    method, path = request.method, clip(request.url.path)
    if error.status_code == 404:
        return problem_response(
            UnknownRoute(f"There is nothing at `{path}`.", remedy="/openapi.json lists every address.")
        )
    if error.status_code == 405:
        allowed = ", ".join(sorted(surface_of(request.app).methods(request.url.path)))
        allowed = allowed or (error.headers or {}).get("Allow", "")
        return problem_response(
            MethodNotAllowed(f"`{path}` does not answer {method}.", f"It answers {allowed}.", {"Allow": allowed})
        )
    if error.status_code == 400:
        return problem_response(MalformedRequest(clip(str(error.detail))))
    problem = Problem(
        title="The request was refused",
        status=error.status_code,
        code=f"http_{error.status_code}",
        detail=clip(str(error.detail)),
    )
    return _respond(problem, dict(error.headers or {}))


async def _on_database_error(_: Request, error: Exception) -> Response:
    log.error("database_unavailable", error=str(error))
    return problem_response(
        Unavailable("The database does not answer.", remedy="Try again in a moment.", headers={"Retry-After": "2"})
    )
