"""What OpenAPI says of where to go from an answer."""

from typing import Any


def to(parameter: str, *operations: str) -> dict[str, Any]:
    """The `links` of a documented response: operations that take the `id` in its body as their `parameter`."""
    return {
        operation: {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}
        for operation in operations
    }
