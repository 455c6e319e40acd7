"""The JSON that the API answers with."""

from typing import Any

from starlette.responses import JSONResponse


class JsonLine(JSONResponse):
    """Ends with a newline: the prompt of a terminal, and the next answer in a file, begin a line of their own."""

    def render(self, content: Any) -> bytes:
        """A string is JSON already."""
        return (content.encode() if isinstance(content, str) else super().render(content)) + b"\n"
