"""A small HTTP/1.1 load generator on plain sockets: it must cost less than the server it drives."""

import asyncio
import time


async def _drive(host: str, port: int, request: bytes, until: float) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    answered = 0
    try:
        while time.perf_counter() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"unexpected answer: {head[:200]!r}")
            length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
            await reader.readexactly(length)
            answered += 1
    finally:
        writer.close()
    return answered


async def _run(host: str, port: int, path: str, headers: dict[str, str], connections: int, seconds: float) -> float:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    started = time.perf_counter()
    counts = await asyncio.gather(
        *(_drive(host, port, request, started + seconds) for _ in range(connections)), return_exceptions=False
    )
    return sum(counts) / (time.perf_counter() - started)


def requests_per_second(
    host: str, port: int, path: str, *, headers: dict[str, str], connections: int = 8, seconds: float = 3.0
) -> float:
    """Keep-alive GETs answered a second, over `connections` connections at once."""
    return asyncio.run(_run(host, port, path, headers, connections, seconds))
