"""What anybody may ask without a key, and what costs the database something: answered from what was found lately."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from app.health.job_figures import JobTotals
from app.health.schemas import Readiness

Found = TypeVar("Found")


class Recent(Generic[Found]):
    """Something that is found out once at a time, however many ask for it, and kept for so many seconds.

    What could not be found out is not kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept_until = 0.0
        self._finding: asyncio.Task[Found] | None = None

    async def get(self, find: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        """What `find` found lately, or finds now. Raises what it raises."""
        if self._finding is None or (self._finding.done() and self._is_old(self._finding)):
            self._finding = asyncio.create_task(self._find(find))
        return await asyncio.shield(self._finding)  # whoever asked may leave; others wait for it too

    async def _find(self, find: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        found = await find()
        self._kept_until = asyncio.get_running_loop().time() + self._seconds
        return found

    def _is_old(self, done: asyncio.Task[Found]) -> bool:
        failed = done.cancelled() or done.exception() is not None
        return failed or asyncio.get_running_loop().time() >= self._kept_until


class Health:
    """What was found of the service lately."""

    def __init__(self, seconds: float) -> None:
        self.readiness: Recent[Readiness] = Recent(seconds)
        self.figures: Recent[bytes] = Recent(seconds)
        self.job_totals = JobTotals()
