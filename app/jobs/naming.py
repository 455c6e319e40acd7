"""Names in the words of a refusal."""

from collections.abc import Sequence

MOST_NAMED = 20


def named(names: Sequence[str]) -> str:
    """The names, and of more than a person reads the first ones and how many there are beside them."""
    shown = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED:,} more"
