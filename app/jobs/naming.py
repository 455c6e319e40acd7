"""Names in the words of a refusal."""

from collections.abc import Sequence

from app.models.inspection import ModelInspection

MOST_NAMED = 20


def named(names: Sequence[str]) -> str:
    """The names, and of more than a person reads the first ones and how many there are beside them."""
    shown = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED:,} more"


def untrainable(facts: ModelInspection) -> str:
    """Why a model that cannot be trained cannot."""
    if facts.training_blockers:
        return f"its operators {named(facts.training_blockers)} prevent it"
    return "it has no constant in float32 or float64 that could be a weight"
