"""What the API offers, read off its routes: their templates, methods and query parameters."""

from typing import Any

from fastapi import FastAPI, Request, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from app.errors import Problem, ValidationFailed
from app.slow_readers import Reader


class Surface:
    """The addresses of one application."""

    def __init__(self, app: FastAPI) -> None:
        paths: dict[str, dict[str, frozenset[str]]] = {}
        for route in iter_route_contexts(app.routes):
            if route.path_format is not None:
                names = _query_names(getattr(route, "dependant", None))
                paths.setdefault(route.path_format, {}).update(dict.fromkeys(route.methods or (), names))
        self._paths = [(compile_path(template)[0], template, methods) for template, methods in paths.items()]

    def template(self, path: str) -> str | None:
        """The route's template (`/v1/jobs/{job_id}`), or None where no route is meant."""
        found = self._find(path)
        return found[0] if found else None

    def methods(self, path: str) -> frozenset[str]:
        found = self._find(path)
        return frozenset(found[1]) if found else frozenset()

    def query_names(self, path: str, method: str) -> frozenset[str]:
        """The query parameters of an operation."""
        found = self._find(path)
        return found[1].get(method, frozenset()) if found else frozenset()

    def _find(self, path: str) -> tuple[str, dict[str, frozenset[str]]] | None:
        for pattern, template, methods in self._paths:
            if pattern.match(path):
                return template, methods
        return None


def _query_names(dependant: Dependant | None) -> frozenset[str]:
    if dependant is None:
        return frozenset()
    return frozenset(
        field.field_info.alias or field.name
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, params.Query)
    )


def surface_of(app: FastAPI) -> Surface:
    """The application's surface, read once."""
    surface = getattr(app.state, "surface", None)
    if not isinstance(surface, Surface):
        surface = app.state.surface = Surface(app)
    return surface


async def refuse_unknown_query(request: Request) -> None:
    """A dependency of every route: a misspelt filter must not silently list everything."""
    if not request.scope["query_string"]:
        return
    known = surface_of(request.app).query_names(request.url.path, request.method)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        names = ", ".join(f"`{name[:100]}`" for name in unknown[:5])
        raise ValidationFailed(
            f"There is no query parameter {names}.",
            remedy=f"The parameters here are: {', '.join(sorted(known)) or 'none'}.",
        )


class Api(FastAPI):
    """The application, whose OpenAPI document has the shape of problems, which no route returns by itself; and whose
    answers wait for nobody longer than they may.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Outside all layers, whose `send` is the server's own no more."""
        if scope["type"] == "http":
            send = Reader(send, self.state.settings.api).send
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return super().openapi()
