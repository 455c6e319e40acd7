"""Which addresses a webhook may have: not those through which the service could be made to ask its own network."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpx

from app.config import WebhookSettings
from app.errors import AddressRefused

NAT64 = IPv6Network("64:ff9b::/96")
# Not public, whatever the Python at hand knows of them: protocol assignments (RFC 6890), local NAT64 (RFC 8215).
RESERVED = (ip_network("192.0.0.0/24"), ip_network("64:ff9b:1::/48"))
LAST_PORT = 65_535
PORTS = {"http": 80, "https": 443}
# Of one name. The system's own limits add up to half a minute where a name server is silent.
RESOLVING_SECONDS = 5.0
Resolve = Callable[[str, int], list[str]]


def read_url(text: str, settings: WebhookSettings) -> httpx.URL:
    """A webhook's address, parsed.

    Raises AddressRefused where it is no `https` URL (or `http`, where that is allowed) of a host.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise AddressRefused("The address is no URL.", remedy="Give one like `https://example.com/hook`.") from error
    schemes = ("https", "http") if settings.allow_http else ("https",)
    if url.scheme not in schemes or not url.host or not 0 < port_of(url) <= LAST_PORT:
        raise AddressRefused(
            f"The address is not of the kind {' or '.join(f'`{scheme}://`' for scheme in schemes)}.",
            remedy="Give one like `https://example.com/hook`; LATHE_WEBHOOKS_ALLOW_HTTP allows `http://`.",
        )
    if url.userinfo or url.fragment:
        raise AddressRefused(
            "The address holds a user or a fragment.", remedy="Verify the signature instead of a password."
        )
    return url


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, the best first. Raises OSError where it has none, or says none in time."""
    answer: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            answer.set_result([*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:
            answer.set_exception(error)

    # It cannot be interrupted: whoever waits goes on, and the thread ends when the system gives up.
    threading.Thread(target=ask, name="lathe-names", daemon=True).start()
    found = answer.result(RESOLVING_SECONDS)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_addresses(url: httpx.URL, settings: WebhookSettings, resolver: Resolve = resolve) -> list[str]:
    """What its host resolves to, asked once. Raises AddressRefused where that is nothing, or one address is not public.

    The two are not told apart: what names mean inside is nobody's business outside.
    """
    try:
        addresses = resolver(url.host, port_of(url))
    except (OSError, UnicodeError):
        addresses = []
    if not addresses or not (settings.allow_private or all(is_public(address) for address in addresses)):
        raise AddressRefused(
            f"`{url.host}` does not resolve to public addresses alone.",
            remedy="Give a host that can be reached from the internet; LATHE_WEBHOOKS_ALLOW_PRIVATE allows others.",
        )
    return addresses


def port_of(url: httpx.URL) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


def is_public(text: str) -> bool:
    """Whether packets to it leave for the internet, an IPv4 address inside an IPv6 one included."""
    address = _innermost(ip_address(text))
    inside = (
        address.is_private,
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_reserved,
        address.is_unspecified,
        isinstance(address, IPv6Address) and address.is_site_local,
    )
    return address.is_global and not any(inside) and not any(address in network for network in RESERVED)


def _innermost(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a mapped, 6to4 or NAT64 one stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
