"""What a hostile or broken upload is to a test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OCTETS = "application/octet-stream"
TAR = "application/x-tar"
NPZ = "application/x-npz"
SAFETENSORS = "application/x-safetensors"


@dataclass(frozen=True)
class Hostile:
    """An upload: how to write it, as what it is declared, which code refuses it and what the refusal must name."""

    name: str
    code: str
    write: Callable[[Path], object]
    media_type: str = OCTETS
    names: str = ""

    def __str__(self) -> str:
        return self.name
