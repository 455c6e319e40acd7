"""Weights of small magnitude set to zero: once and without data, or, with `training`, while the rest is trained.

|w| < theta goes, theta given, or found from a percentile or a target (`worker.engine.pruning.thresholds`); or what a
pattern N:M leaves no room for (`worker.engine.pruning.patterns`). The user's own file is written again with the zeros
in it, and nothing else of it moves; with training, the weights that stay do (`worker.engine.training.sparsifying`).
ONNX Runtime gains no speed by zeros: sparse weights are made dense when it loads a file, and its kernels multiply by a
zero as by any number.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.jobs.report import Layer
from app.recipes.pruning import PruneUnstructured
from worker.engine.evaluation.file_size import LEVEL, compressed_size_bytes
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of, overwrite
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.pruning.places import Found, Place, find_places, open_graph
from worker.engine.pruning.selection import find_cuts, taken_by
from worker.engine.pruning.thresholds import Cut

NO_FASTER = (
    "ONNX Runtime makes sparse weights dense when it loads a file and multiplies by zeros as by any number: the model "
    "runs no faster. The file keeps its size; it is smaller once it is compressed."
)


@dataclass(frozen=True)
class Made:
    """New values of constants of `file` by name, the cuts that made them, and what is to be said of both, and of
    training.
    """

    file: ModelFile
    arrays: dict[str, np.ndarray]
    cuts: dict[str, Cut]
    notes: list[str]
    training: dict[str, Any] = field(default_factory=dict)


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
    cuts = find_cuts(found.places, config)
    at_once = _pruned_at_once(found.places, cuts, config, context)
    made = Made(model, at_once, cuts, [_rule_in_words(cuts, config)])
    if config.training is not None:
        made = _trained(model, found.places, config, context, made)
    zeros = {place.name: int((made.arrays.get(place.name, place.values) == 0).sum()) for place in found.places}
    notes = [*made.notes, _sparsity_in_words(found.places, zeros), *notes]
    layers = [_layer(place, zeros[place.name]) for place in found.places]
    manifest = _manifest(found, zeros, made, config)
    if not made.arrays:
        return PassResult(model, False, [*notes, "No weight was set to zero that is not so already."], manifest, layers)
    result = overwrite(made.file, made.arrays, context.scratch / "result")
    before, now = (compressed_size_bytes(file.files()) for file in (model, result))
    notes += [f"Compressed (zstd, level {LEVEL}): {now:,} bytes, before {before:,}.", NO_FASTER]
    manifest["compressed"] = {"method": f"zstd, level {LEVEL}", "before_bytes": before, "after_bytes": now}
    return PassResult(result, True, notes, manifest, layers)


def _pruned_at_once(
    places: list[Place], cuts: dict[str, Cut], config: PruneUnstructured, context: PassContext
) -> dict[str, np.ndarray]:
    """The weights that get a zero, by name. Zeros stay as they are, minus zero too."""
    arrays = {}
    for number, (place, taken) in enumerate(taken_by(cuts, places, config)):
        if (taken & (place.values != 0)).any():
            arrays[place.name] = np.where(taken & (place.values != 0), np.float32(0), place.values)
        if config.training is None:
            context.progress((number + 1) / len(places))
    return arrays


def _trained(
    model: ModelFile, places: list[Place], config: PruneUnstructured, context: PassContext, at_once: Made
) -> Made:
    """What training makes of it; `at_once` where that is better, or all that there is time for."""
    # Here and not above: pruning once does without torch.
    from worker.engine.training.sparsifying import train_sparse  # noqa: PLC0415

    sparse = train_sparse(model, places, config, context)
    if sparse.arrays is None:
        return Made(at_once.file, at_once.arrays, at_once.cuts, [*at_once.notes, *sparse.notes], sparse.manifest)
    if config.threshold is not None or config.pattern is not None:
        return Made(sparse.file, sparse.arrays, at_once.cuts, [*at_once.notes, *sparse.notes], sparse.manifest)
    grown = "Weights were set to zero by their magnitude as it was, more and more over the first half of the training."
    return Made(sparse.file, sparse.arrays, {}, [grown, *sparse.notes], sparse.manifest)


def _layer(place: Place, zeros: int) -> Layer:
    sparsity = zeros / place.values.size
    return Layer(name=place.node, operator=place.operator, weight=place.name, sparsity=sparsity)


def _manifest(found: Found, zeros: dict[str, int], made: Made, config: PruneUnstructured) -> dict[str, Any]:
    total = sum(place.values.size for place in found.places)
    manifest = {
        "theta": {name: cut.theta for name, cut in made.cuts.items()},
        "pattern": config.pattern,
        "sparsity": {
            "before": _zeros_before(found.places) / total,
            "after": sum(zeros.values()) / total,
            "weights": {place.name: zeros[place.name] / place.values.size for place in found.places},
        },
        "left_alone": dict(sorted(found.reasons.items())),
    }
    if made.training:
        learned = dict(made.training)
        manifest["replay"] = config.model_dump(mode="json", by_alias=True) | {"training": learned.pop("replay")}
        manifest["training"] = learned
    return manifest


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
