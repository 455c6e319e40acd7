"""How slowly a body may arrive: whoever holds a connection and sends next to nothing is cut off."""

import asyncio
from collections.abc import AsyncIterator

from app.config import ApiSettings
from app.errors import TooSlow
from app.patience import Patience


async def steady(pieces: AsyncIterator[bytes], api: ApiSettings) -> AsyncIterator[bytes]:
    """The pieces, as long as they keep up with the slowest rate that is allowed; a rate of 0 allows every one.

    Only waiting for the client counts: a storage that is slow is not the client's fault.

    Raises TooSlow.
    """
    rate, grace = api.min_upload_bytes_per_second, api.slow_upload_grace_seconds
    clock = asyncio.get_running_loop().time
    patience, arrived_bytes = Patience(rate, grace), 0
    while True:
        began = clock()
        try:
            async with asyncio.timeout(patience.seconds) as waiting:
                piece = await anext(pieces, None)
        except TimeoutError:
            if not waiting.expired():
                raise
            raise TooSlow(
                f"Fewer than {rate} bytes a second came: {arrived_bytes} in all, before patience ran out.",
                remedy=f"Send at least {rate} bytes a second, and pause for less than {grace:g} s.",
                # Or the rest of the body would go on trickling into a connection that is kept for the next request.
                headers={"Connection": "close"},
            ) from None
        if piece is None:
            return
        arrived_bytes += len(piece)
        patience.account(clock() - began, len(piece))
        yield piece
