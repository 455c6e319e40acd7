"""How many requests a workspace may make, counted in Redis for all processes of the API together.

Redis may be lost at any time, and nothing waits for it here: while it does not answer, or this process is too busy to
hear it, each process counts by itself.
"""

import asyncio
import math
import time

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.util import WindowStats
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.access.service import Caller
from app.config import Settings
from app.errors import TooManyRequests
from app.queue import plain_url

WINDOW_SECONDS = 60
# A request waits this long for Redis at most, and where it was in vain the next ones do not wait for it at all.
PATIENCE_SECONDS = 0.25
PAUSE_SECONDS = 5.0
log = structlog.get_logger()


class RateLimiter:
    """A sliding window a workspace: of the window before as much counts as it still overlaps the last minute."""

    def __init__(self, settings: Settings) -> None:
        url = plain_url(settings.redis_url.get_secret_value())
        self._pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0))
        storage = RedisStorage(
            "async+redis://",  # the pool says where
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="lathe-requests",
            connection_pool=self._pool,  # type: ignore[arg-type] # documented, and missing in the annotation
        )
        self._together = SlidingWindowCounterRateLimiter(storage)
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._per_minute = settings.limits.requests_per_minute
        self._away = False
        self._paused_until = 0.0

    async def spend(self, caller: Caller) -> dict[str, str]:
        """Count one request of the caller's workspace; the headers that tell what is left, where there is a limit.

        Raises TooManyRequests.
        """
        own = caller.requests_per_minute
        most = self._per_minute if own is None else own
        if not most:
            return {}
        passes, stats = await self._count(RateLimitItemPerMinute(most), str(caller.workspace_id))
        headers = _headers(most, stats)
        if not passes:
            raise TooManyRequests(
                f"This workspace may make {most} requests a minute, with all its keys together.",
                remedy="Wait as long as Retry-After says; follow a job's events rather than polling it.",
                headers=headers | {"Retry-After": str(_wait_seconds(stats))},
            )
        return headers

    async def _count(self, item: RateLimitItemPerMinute, workspace: str) -> tuple[bool, WindowStats]:
        """Whether one more request passes, and how the window stands."""
        if time.monotonic() >= self._paused_until:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    counted = await _hit(self._together, item, workspace)
            except (StorageError, OSError, TimeoutError) as error:
                self._pause(error)
            else:
                if self._away:
                    self._away = False
                    log.info("requests_counted_together")
                return counted
        return await _hit(self._alone, item, workspace)

    async def close(self) -> None:
        await self._pool.aclose()

    def _pause(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + PAUSE_SECONDS
        if not self._away:
            self._away = True
            log.warning("requests_counted_per_process", error=str(error) or type(error).__name__)


async def _hit(
    strategy: SlidingWindowCounterRateLimiter, item: RateLimitItemPerMinute, workspace: str
) -> tuple[bool, WindowStats]:
    return await strategy.hit(item, workspace), await strategy.get_window_stats(item, workspace)


def _headers(most: int, stats: WindowStats) -> dict[str, str]:
    """As in draft-ietf-httpapi-ratelimit-headers-10."""
    return {
        "RateLimit-Policy": f'"requests";q={most};w={WINDOW_SECONDS}',
        "RateLimit": f'"requests";r={stats.remaining};t={_wait_seconds(stats)}',
    }


def _wait_seconds(stats: WindowStats) -> int:
    """Until more is left than now."""
    return max(1, math.ceil(stats.reset_time - time.time()))
