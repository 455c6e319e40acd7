"""Channels, hidden units and attention heads taken out whole, and what is left fitted to the original.

What goes together is found by propagation over the graph (`worker.engine.structure.groups`, after DepGraph,
https://arxiv.org/abs/2301.12900); units are scored (`worker.engine.structure.importance`), chosen
(`worker.engine.structure.selection`) and cut out of the user's own file; then the layers behind them get the weights
with which they come closest to what the original computes (`worker.engine.structure.recovery`). None of it takes labels
or trains; `training` does so behind it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.recipes.structure import PruneStructured
from worker.engine.faults import UserFault
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import unknown_nodes
from worker.engine.structure.cutting import cut
from worker.engine.structure.groups import Structure, find_structure
from worker.engine.structure.importance import Scores, fisher_scores, magnitude_scores, obs_scores
from worker.engine.structure.propagation import read_graph
from worker.engine.structure.recovery import recovered
from worker.engine.structure.selection import Choice, Limits, Macs, by_macs, by_share
from worker.engine.structure.sizes import measured_sizes
from worker.engine.structure.timing import Timed, by_latency

# What Fisher information settles at: gradients are of one sample each.
FISHER_SAMPLES = 128
SCORED, CUT, RECOVERED = 0.5, 0.6, 0.9

NOT_TRAINED = "No time was left to train: units were taken out and nothing was trained."


class NoSuchGroup(UserFault):
    code, title = "no_such_group", "The recipe names units that the model does not have"


@dataclass
class Work:
    """One run of the pass."""

    model: ModelFile
    structure: Structure
    config: PruneStructured
    context: PassContext
    macs: Macs

    @property
    def limits(self) -> Limits:
        return Limits(self.config.largest_share, self.config.multiple)


def apply(model: ModelFile, config: PruneStructured, context: PassContext) -> PassResult:
    """Notes say by group what is left, what stays whole and why, and what the layers behind gained by least squares.

    Raises:
        NoSuchGroup: `given` is not of this model.

    """
    context.phase("preparing")
    if is_quantized(model.structure()):
        return PassResult(model, False, ["The model computes in 8 bits already: nothing was taken out."])
    sizes = measured_sizes(model, context.timed_feed(), context.scratch / "sizes", context.threads)
    graph = read_graph(model)
    structure = _without_excluded(find_structure(graph, sizes), config)
    notes = [*unknown_nodes(config.exclude, model.structure()), *_left_in_words(structure)]
    if not structure.groups:
        nothing = "No unit of the model can be taken out: nothing was changed."
        return PassResult(model, False, [*notes, nothing])
    work = Work(model, structure, config, context, Macs(model.structure()))
    context.check_time("pruning")
    context.phase("pruning")
    timed = _chosen(work)
    context.progress(SCORED)
    if not timed.choice.count:
        nothing = "What was asked for leaves every unit where it is: nothing was changed."
        return PassResult(model, False, [*notes, *timed.notes, nothing])
    result, more, manifest = _cut_and_recovered(work, timed.choice)
    notes = [
        *_widths_in_words(structure, timed.choice),
        *_macs_in_words(work, timed.choice),
        *timed.notes,
        *more,
        *notes,
    ]
    manifest |= {"replay": _pinned(config, timed.choice), "ratios": timed.ratios}
    if config.training is not None:
        # Here and not above: pruning does without torch.
        from worker.engine.training.learning import learn_behind  # noqa: PLC0415

        result = learn_behind(result, context.original or model, config.training, context, notes, manifest, NOT_TRAINED)
    context.progress(1.0)
    return PassResult(result, True, notes, manifest)


def _without_excluded(structure: Structure, config: PruneStructured) -> Structure:
    def is_excluded(names: set[str]) -> bool:
        return bool(names & set(config.exclude))

    kept = [
        group for group in structure.groups if not is_excluded({part.slot.node.name or "" for part in group.producers})
    ]
    reasons = {
        part.slot.node.name or "": "excluded by the recipe"
        for group in structure.groups
        if group not in kept
        for part in group.producers
    }
    return Structure(structure.model, structure.wiring, kept, structure.reasons | reasons)


def _chosen(work: Work) -> Timed:
    config, structure = work.config, work.structure
    if config.given is not None:
        return Timed(_given(work))
    scores = _scores(work)
    if config.ratio is not None:
        together = config.scope == "global"
        return Timed(by_share(structure, scores, config.ratio, work.limits, together=together))
    target = config.target
    if target is not None and target.latency_ratio is not None:
        return by_latency(work.model, structure, scores, work.macs, target.latency_ratio, work.limits, work.context)
    share = 1.0 if target is None or target.mac_ratio is None else target.mac_ratio
    choice = by_macs(structure, scores, work.macs, share, work.limits)
    left = work.macs.of(structure, choice) / max(1, work.macs.of(structure, Choice({})))
    missed = f"No more can be taken out than leaves {left:.1%} of the multiply-accumulates: {share:.1%} were asked for."
    return Timed(choice, [missed] if left > share else [])


def _given(work: Work) -> Choice:
    groups = {group.name: group for group in work.structure.groups}
    removed = {}
    for one in work.config.given or ():
        group = groups.get(one.group)
        if group is None or max(one.units) >= group.width or len(set(one.units)) >= group.width:
            raise NoSuchGroup(
                f"`given` takes units out of {one.group!r}, which has no such units to spare in this model.",
                "Give units as a manifest of the same model records them, or `ratio` or `target`.",
            )
        removed[one.group] = np.unique(one.units)
    return Choice(removed)


def _scores(work: Work) -> Scores:
    config, context = work.config, work.context
    if config.importance == "obs":
        return obs_scores(work.structure, work.model, context, config.calibration_samples)
    if config.importance == "fisher":
        # Here and not above: the other three do without torch.
        from worker.engine.training.fisher import gradient_products  # noqa: PLC0415

        samples = min(FISHER_SAMPLES, config.calibration_samples)
        return fisher_scores(work.structure, gradient_products(work.model, context, samples))
    return magnitude_scores(work.structure, 1 if config.importance == "l1" else 2)


def _cut_and_recovered(work: Work, choice: Choice) -> tuple[ModelFile, list[str], dict[str, Any]]:
    structure, context = work.structure, work.context
    gone = choice.gone(structure)
    pruned = cut(work.model, structure, gone, context.scratch / "cut")
    context.progress(CUT)
    removed = {name: units.tolist() for name, units in choice.removed.items()}
    manifest: dict[str, Any] = {
        "widths": {
            group.name: [group.width, group.width - len(removed.get(group.name, ()))] for group in structure.groups
        },
        "left_alone": dict(sorted(structure.reasons.items())),
    }
    if not work.config.recovery:
        return pruned, ["Nothing was fitted behind what was taken out."], manifest
    context.phase("recovering")
    kept = structure.kept_channels(gone)
    found = recovered(work.model, pruned, kept, context, context.scratch / "result")
    context.progress(RECOVERED)
    return found.model, found.notes, manifest


def _pinned(config: PruneStructured, choice: Choice) -> dict[str, Any]:
    """The arguments that repeat this run's choices without scoring or timing anything."""
    given = [{"group": name, "units": units.tolist()} for name, units in choice.removed.items()]
    return config.model_dump(mode="json", by_alias=True) | {"ratio": None, "target": None, "given": given}


def _widths_in_words(structure: Structure, choice: Choice) -> list[str]:
    units = sum(group.width for group in structure.groups)
    first = f"{choice.count:,} of {units:,} units in {len(structure.groups)} groups were taken out."
    widths = []
    for group in structure.groups:
        count = len(choice.removed.get(group.name, ()))
        if count:
            what = "heads" if group.rows_a_unit > 1 else "units"
            widths.append(f"{group.name} {group.width - count + group.frozen} of {group.width + group.frozen} {what}")
    return [first, f"Left: {'; '.join(widths)}."]


def _macs_in_words(work: Work, choice: Choice) -> list[str]:
    before, now = (work.macs.of(work.structure, one) for one in (Choice({}), choice))
    return [f"Multiply-accumulates of a call: {now:,}, before {before:,} ({now / before:.1%})."] if before else []


def _left_in_words(structure: Structure) -> list[str]:
    counts = Counter(structure.reasons.values())
    return [f"Left as they were: units of {count} nodes ({reason})." for reason, count in sorted(counts.items())]
