"""What a workspace may have open at once in one process, and what it is told beyond that."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from app.errors import LatheError


class OpenAtOnce:
    """How many of something each workspace has open; 0: any number may be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[UUID] = Counter()

    def refuse_excess(self, workspace_id: UUID) -> None:
        """Raises what `_refusal` makes."""
        if self._most and self._open[workspace_id] >= self._most:
            raise self._refusal(self._most)

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

    def _refusal(self, most: int) -> LatheError:
        raise NotImplementedError
