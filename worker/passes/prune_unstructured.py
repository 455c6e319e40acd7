"""Weights of small magnitude set to zero, once, without training. Needs no data.

|w| < theta goes, theta given, or found from a percentile or a target (`worker.engine.pruning.thresholds`); or what a
pattern N:M leaves no room for (`worker.engine.pruning.patterns`). The user's own file is written again with the zeros
in it, and nothing else of it moves. ONNX Runtime gains no speed by zeros: sparse weights are made dense when it loads a
file, and its kernels multiply by a zero as by any number.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from app.jobs.report import Layer
from app.recipes.pruning import PruneUnstructured
from worker.engine.evaluation.file_size import LEVEL, compressed_size_bytes
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of, overwrite
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.pruning.patterns import beyond_pattern
from worker.engine.pruning.places import Found, Place, find_places, open_graph
from worker.engine.pruning.thresholds import Cut, after, below_cut, cut_at_percentile, cut_to_sparsity

NO_FASTER = (
    "ONNX Runtime makes sparse weights dense when it loads a file and multiplies by zeros as by any number: the model "
    "runs no faster. The file keeps its size; it is smaller once it is compressed."
)


def apply(model: ModelFile, config: PruneUnstructured, context: PassContext) -> PassResult:
    """Notes say theta, how many weights are zero, what stays and why, and the compressed size before and after."""
    context.phase("pruning")
    structure = model.structure()
    if is_quantized(structure):
        return PassResult(model, False, ["The model computes in 8 bits already: nothing was set to zero."])
    in_file = {name for name, _ in constants_of(structure.graph)}
    found = find_places(open_graph(model), in_file, config.operators, config.exclude)
    notes = _left_in_words(found, config)
    if not found.places:
        return PassResult(
            model, False, [*notes, "No float32 weight of a product is left to prune: nothing was changed."]
        )
    context.check_time("pruning")
    cuts = _cuts(found.places, config)
    pruned, zeros = {}, {}
    for number, (place, taken) in enumerate(_taken(found.places, cuts, config)):
        zeros[place.name] = int((taken | (place.values == 0)).sum())
        # Zeros stay as they are, minus zero too.
        if (taken & (place.values != 0)).any():
            pruned[place.name] = np.where(taken & (place.values != 0), np.float32(0), place.values)
        context.progress((number + 1) / len(found.places))
    notes = [_rule_in_words(cuts, config), _sparsity_in_words(found.places, zeros), *notes]
    layers = [_layer(place, zeros[place.name]) for place in found.places]
    manifest = _manifest(found, zeros, cuts, config)
    if not pruned:
        return PassResult(model, False, [*notes, "No weight was set to zero that is not so already."], manifest, layers)
    result = overwrite(model, pruned, context.scratch / "result")
    before, now = (compressed_size_bytes(file.files()) for file in (model, result))
    notes += [f"Compressed (zstd, level {LEVEL}): {now:,} bytes, before {before:,}.", NO_FASTER]
    manifest["compressed"] = {"method": f"zstd, level {LEVEL}", "before_bytes": before, "after_bytes": now}
    return PassResult(result, True, notes, manifest, layers)


def _cuts(places: list[Place], config: PruneUnstructured) -> dict[str, Cut]:
    """The cut of each weight by its name; where all share one, as the weights before leave it. None with a pattern."""
    if config.pattern is not None:
        return {}
    if config.threshold is not None:
        return {place.name: Cut(config.threshold) for place in places}
    if config.scope == "layer":
        return {place.name: _cut([place], config) for place in places}
    cut, cuts = _cut(places, config), {}
    for place in places:
        cuts[place.name] = cut
        cut = after(place.values, cut)
    return cuts


def _cut(places: list[Place], config: PruneUnstructured) -> Cut:
    weights = [place.values for place in places]
    if config.percentile is not None:
        return cut_at_percentile(weights, config.percentile)
    return cut_to_sparsity(weights, config.sparsity or 0.0)


def _taken(places: list[Place], cuts: dict[str, Cut], config: PruneUnstructured) -> Iterator[tuple[Place, np.ndarray]]:
    """Every weight with what goes of it: bool of its shape."""
    for place in places:
        if config.pattern is None:
            yield place, below_cut(place.values, cuts[place.name])
        else:
            yield place, beyond_pattern(place.values, place.axis, *config.kept_of_group, place.groups)


def _layer(place: Place, zeros: int) -> Layer:
    sparsity = zeros / place.values.size
    return Layer(name=place.node, operator=place.operator, weight=place.name, sparsity=sparsity)


def _manifest(found: Found, zeros: dict[str, int], cuts: dict[str, Cut], config: PruneUnstructured) -> dict[str, Any]:
    total = sum(place.values.size for place in found.places)
    return {
        "theta": {name: cut.theta for name, cut in cuts.items()},
        "pattern": config.pattern,
        "sparsity": {
            "before": _zeros_before(found.places) / total,
            "after": sum(zeros.values()) / total,
            "weights": {place.name: zeros[place.name] / place.values.size for place in found.places},
        },
        "left_alone": dict(sorted(found.reasons.items())),
    }


def _rule_in_words(cuts: dict[str, Cut], config: PruneUnstructured) -> str:
    if config.pattern is not None:
        kept, size = config.kept_of_group
        return f"Of every {size} weights along the input axis of a product the {kept} largest stay."
    thetas = sorted({cut.theta for cut in cuts.values()})
    if len(thetas) == 1:
        return f"Weights with |w| < theta = {thetas[0]:.6g} were set to zero."
    return f"Weights with |w| < theta were set to zero; theta is {thetas[0]:.6g} to {thetas[-1]:.6g}, by weight tensor."


def _sparsity_in_words(places: list[Place], zeros: dict[str, int]) -> str:
    total, before, now = sum(place.values.size for place in places), _zeros_before(places), sum(zeros.values())
    return (
        f"{now:,} of {total:,} weights in {len(places)} tensors are zero ({now / total:.1%}); before, {before:,} were "
        f"({before / total:.1%})."
    )


def _zeros_before(places: list[Place]) -> int:
    return sum(int((place.values == 0).sum()) for place in places)


def _left_in_words(found: Found, config: PruneUnstructured) -> list[str]:
    counts = Counter(found.reasons.values())
    notes = [f"Left as they were: {count} tensors ({reason})." for reason, count in sorted(counts.items())]
    unknown = sorted(set(config.exclude) - found.nodes)
    if unknown:
        notes.append(f"`exclude` names nodes that the model does not have: {', '.join(unknown[:10])}.")
    return notes
