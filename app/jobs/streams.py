"""Streams of events that are open: each asks the database twice a second for as long as its client likes."""

from app.access.open_at_once import OpenAtOnce
from app.errors import LatheError


class TooManyStreams(LatheError):
    status, code, title = 429, "too_many_streams", "The workspace follows as many jobs at once as it may"
    sends = ("Retry-After",)


class OpenStreams(OpenAtOnce):
    """How many of them a workspace has open."""

    def _refusal(self, most: int) -> LatheError:
        return TooManyStreams(
            f"{most} streams of events are open.",
            remedy="Close some, or ask for the events as JSON. LATHE_API_EVENT_STREAMS sets the most.",
            headers={"Retry-After": "5"},
        )
