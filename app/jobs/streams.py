"""Streams of events that are open: each asks the database twice a second for as long as its client likes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from app.config import ApiSettings
from app.errors import LatheError


class TooManyStreams(LatheError):
    status, code, title = 429, "too_many_streams", "The workspace follows as many jobs at once as it may"
    sends = ("Retry-After",)


class OpenStreams:
    """How many of them a workspace has open, in this process."""

    def __init__(self, api: ApiSettings) -> None:
        self._most = api.event_streams
        self._open: Counter[UUID] = Counter()

    def refuse_excess(self, workspace_id: UUID) -> None:
        """Raises TooManyStreams."""
        if self._most and self._open[workspace_id] >= self._most:
            raise TooManyStreams(
                f"{self._most} streams of events are open.",
                remedy="Close some, or ask for the events as JSON. LATHE_API_EVENT_STREAMS sets the most.",
                headers={"Retry-After": "5"},
            )

    @contextmanager
    def counted(self, workspace_id: UUID) -> Iterator[None]:
        """One more, until it ends."""
        self._open[workspace_id] += 1
        try:
            yield
        finally:
            self._open[workspace_id] -= 1
            if not self._open[workspace_id]:
                del self._open[workspace_id]
