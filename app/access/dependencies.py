"""Who may call: an API key in, a caller out."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from cachetools import TTLCache
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.access import keys, service
from app.access.rates import RateLimiter
from app.access.service import Caller
from app.config import Settings
from app.database import AsyncDatabase
from app.errors import MissingScope, Unauthenticated

bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer lth_...`.")


class Authenticator:
    """Verifies keys, and trusts a verified one for a few seconds: a revocation takes that long to be felt."""

    def __init__(self, database: AsyncDatabase, settings: Settings) -> None:
        self._database = database
        self._secret_key = settings.secret_key.get_secret_value()
        self._verified: TTLCache[bytes, Caller] = TTLCache(10_000, settings.api.key_cache_seconds)

    async def verify(self, text: str) -> Caller:
        """Who a key belongs to. Raises Unauthenticated where the text is no live key."""
        digest = hashlib.sha256(text.encode()).digest()
        caller = self._verified.get(digest)
        if caller is None:
            caller = self._verified[digest] = await self._look_up(text)
        return caller

    async def _look_up(self, text: str) -> Caller:
        parts = keys.split(text)
        if parts is not None:
            async with self._database.session_scope() as session:
                found = await service.find_caller(session, parts[0])
                if found is not None:
                    caller, secret_hash = found
                    if hmac.compare_digest(secret_hash, keys.hash_secret(parts[1], self._secret_key)):
                        await service.note_use(session, caller.key_id)
                        return caller
        raise Unauthenticated(
            "The key is unknown, revoked or expired.",
            remedy="`lathe keys create` makes one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    if credentials is None:
        raise Unauthenticated(
            "The request carries no API key.",
            remedy="Send `Authorization: Bearer lth_...`.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    authenticator: Authenticator = request.app.state.authenticator
    caller = replace(await authenticator.verify(credentials.credentials), request_id=request.state.request_id)
    limiter: RateLimiter = request.app.state.rate_limiter
    request.state.headers |= await limiter.spend(caller)
    return caller


def still_valid(request: Request) -> Callable[[], Awaitable[bool]]:
    """Whether the key that a request came with opens anything still, for whoever goes on answering for long."""
    authenticator: Authenticator = request.app.state.authenticator
    text = request.headers["authorization"].partition(" ")[2].strip()

    async def check() -> bool:
        try:
            await authenticator.verify(text)
        except Unauthenticated:
            return False
        return True

    return check


def require(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that lets through callers whose key bears `scope`."""

    async def check(caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        if scope not in caller.scopes:
            raise MissingScope(
                f"This call needs the scope `{scope}`; the key bears {', '.join(sorted(caller.scopes)) or 'none'}.",
                remedy=f"Use a key made with `--scope {scope}`.",
            )
        return caller

    return check


Reader = Annotated[Caller, Depends(require("read"))]
Writer = Annotated[Caller, Depends(require("write"))]
Administrator = Annotated[Caller, Depends(require("admin"))]
