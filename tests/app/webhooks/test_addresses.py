"""Which addresses are refused: all that lead inside, however they are written."""

import threading

import pytest

from app.config import WebhookSettings
from app.errors import AddressRefused
from app.webhooks.addresses import checked_addresses, is_public, read_url

INNER = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b:1::1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///hook",
        "example.com/hook",
        "//example.com/hook",
        "https://user:word@example.com/",
        "https://user@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://[::1/",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ],
)
def test_an_address_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(AddressRefused):
        read_url(text, WebhookSettings())


# 127.0.0.1 as C libraries read it, in one number, in hexadecimal, in octal and short.
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "localhost", "exa mple.com"]
)
def test_this_machine_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(AddressRefused):
        checked_addresses(read_url(f"https://{host}/", WebhookSettings()), WebhookSettings())


def test_one_inner_address_among_others_is_enough_and_no_address_too() -> None:
    url, settings = read_url("https://example.com/hook", WebhookSettings()), WebhookSettings()
    assert checked_addresses(url, settings, lambda host, port: ["1.1.1.1"]) == ["1.1.1.1"]
    for found in (["1.1.1.1", "10.0.0.1"], []):
        with pytest.raises(AddressRefused, match="does not resolve to public addresses alone"):
            checked_addresses(url, settings, lambda host, port, found=found: found)


def test_settings_allow_what_is_refused() -> None:
    allowing = WebhookSettings(allow_http=True, allow_private=True)
    url = read_url("http://127.0.0.1:8080/hook", allowing)
    assert checked_addresses(url, allowing) == ["127.0.0.1"]


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_host, **_kind: answered.wait(60))
    monkeypatch.setattr("app.webhooks.addresses.RESOLVING_SECONDS", 0.05)
    with pytest.raises(AddressRefused):
        checked_addresses(read_url("https://example.com/hook", WebhookSettings()), WebhookSettings())
    assert not answered.is_set()
    answered.set()
