"""What a rule of `prune_unstructured` takes of the weights at hand."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from app.recipes.pruning import PruneUnstructured
from worker.engine.pruning.patterns import beyond_pattern
from worker.engine.pruning.places import Place
from worker.engine.pruning.thresholds import Cut, after, below_cut, cut_at_percentile, cut_to_sparsity


def find_cuts(places: Sequence[Place], config: PruneUnstructured) -> dict[str, Cut]:
    """The cut of each weight by its name; where all share one, as the weights before leave it. None with a pattern."""
    if config.pattern is not None:
        return {}
    if config.threshold is not None:
        return {place.name: Cut(config.threshold) for place in places}
    if config.percentile is not None:
        percentile = config.percentile
        return _by_scope(places, config, lambda weights: cut_at_percentile(weights, percentile))
    return cuts_to_share(places, config, config.sparsity or 0.0)


def cuts_to_share(places: Sequence[Place], config: PruneUnstructured, share: float) -> dict[str, Cut]:
    """The cuts that leave this share zero, of each weight or of all, as the scope says."""
    return _by_scope(places, config, lambda weights: cut_to_sparsity(weights, share))


def taken_by(
    cuts: Mapping[str, Cut], places: Sequence[Place], config: PruneUnstructured
) -> Iterator[tuple[Place, np.ndarray]]:
    """Every weight with what goes of it: bool of its shape."""
    for place in places:
        if config.pattern is None:
            yield place, below_cut(place.values, cuts[place.name])
        else:
            yield place, beyond_pattern(place.values, place.axis, *config.kept_of_group, place.groups)


def _by_scope(
    places: Sequence[Place], config: PruneUnstructured, cut_of: Callable[[list[np.ndarray]], Cut]
) -> dict[str, Cut]:
    if config.scope == "layer":
        return {place.name: cut_of([place.values]) for place in places}
    cut, cuts = cut_of([place.values for place in places]), {}
    for place in places:
        cuts[place.name] = cut
        cut = after(place.values, cut)
    return cuts
