"""Recipes that the request names, in place of a search for them."""

from collections.abc import Sequence

from app.recipes.catalogue import AnyPass
from worker.engine.search.proposals import Proposal, Ratios

# Nobody knows how long one takes. Progress takes each for a usual trial; how long one may take the budget says.
USUAL_SECONDS = 60.0


def given_proposals(recipes: Sequence[Sequence[AnyPass]]) -> list[Proposal]:
    """Named by their passes, and by their place where two have the same."""
    names = [" + ".join(str(one.pass_) for one in recipe) for recipe in recipes]
    return [
        Proposal(
            name=name if names.count(name) == 1 else f"{name} ({number})",
            family="given",
            recipe=tuple(recipe),
            expected=Ratios(),
            chance=1.0,
            seconds=USUAL_SECONDS,
        )
        for number, (name, recipe) in enumerate(zip(names, recipes, strict=True), 1)
    ]
