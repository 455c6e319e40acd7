"""What an inspection may say: it stays in a row, and every list of models or datasets shows it."""

from collections.abc import Iterable

from pydantic import BaseModel

from worker.engine.faults import UserFault

# What a request may name (`Name` in `app/recipes/base.py`).
MAX_NAME_CHARACTERS = 512
# Five thousand tensors of long names; the models known with most have a few hundred.
MAX_INSPECTION_BYTES = 1 << 20


def check_names(names: Iterable[str], what: str, refusal: type[UserFault]) -> None:
    """Raises `refusal` for a name that no request could name."""
    for name in names:
        if len(name) > MAX_NAME_CHARACTERS:
            raise refusal(
                f"The name of {what} has {len(name):,} characters: {name[:100]!r}...; {MAX_NAME_CHARACTERS} is the "
                "most accepted.",
                "Give it a shorter name.",
            )


def excess_bytes(inspection: BaseModel) -> int | None:
    """Its bytes as JSON where they are more than are accepted."""
    size_bytes = len(inspection.model_dump_json().encode())
    return size_bytes if size_bytes > MAX_INSPECTION_BYTES else None
