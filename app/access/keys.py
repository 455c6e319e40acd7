"""API keys: `lth_` + a prefix that finds the row + a 256-bit secret of which only a keyed hash is stored."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

KEY_PATTERN = re.compile(r"lth_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
PREFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
SCOPES = ("read", "write", "admin")


@dataclass(frozen=True)
class NewKey:
    """A key at the only moment when its text is known."""

    text: str
    prefix: str
    secret_hash: bytes


def generate(secret_key: str) -> NewKey:
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    return NewKey(text=f"lth_{prefix}_{secret}", prefix=prefix, secret_hash=hash_secret(secret, secret_key))


def split(text: str) -> tuple[str, str] | None:
    """Prefix and secret of a key's text, or None where the text is no key."""
    match = KEY_PATTERN.fullmatch(text)
    return (match[1], match[2]) if match else None


def hash_secret(secret: str, secret_key: str) -> bytes:
    """HMAC-SHA256: with 256 random bits a slow hash adds nothing, and the key keeps a stolen table useless."""
    return hmac.digest(secret_key.encode(), secret.encode(), hashlib.sha256)
