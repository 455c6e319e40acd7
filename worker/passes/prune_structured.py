"""Units and whole blocks taken out of a model, and what is left fitted to the original.

What goes together is found by propagation over the graph (`worker.engine.structure.groups`, after DepGraph,
https://arxiv.org/abs/2301.12900); units are scored (`worker.engine.structure.importance`), chosen
(`worker.engine.structure.selection`) and cut out of the user's own file. Residual blocks are found by their sums
(`worker.engine.structure.blocks`), scored by what outputs miss of them (`worker.engine.structure.block_choice`) and
bypassed. Then the layers behind get the weights with which they come closest to what the original computes
(`worker.engine.structure.recovery`). None of it takes labels or trains; `training` does so behind it.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from app.recipes.structure import GivenBlock, GivenUnits, PruneStructured
from worker.engine.faults import UserFault
from worker.engine.fidelity import Answers
from worker.engine.float16.halves import computes_in_half
from worker.engine.kinds import is_quantized
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import unknown_nodes
from worker.engine.structure import account
from worker.engine.structure.block_choice import Chooser, Step, Switches, macs_saved, samples_for, time_saved
from worker.engine.structure.cutting import cut
from worker.engine.structure.importance import (
    Scored,
    Scores,
    completed,
    fisher_scores,
    magnitude_scores,
    obs_scores,
)
from worker.engine.structure.recovery import fitted_samples, judged_samples, recovered
from worker.engine.structure.recurrent_fitting import refitted
from worker.engine.structure.removal import Rest, Subject
from worker.engine.structure.selection import Choice, Limits, by_macs, by_share_of_all, by_shares
from worker.engine.structure.timing import Timed, by_latency, time_ratio

# What Fisher information settles at: gradients are of one sample each.
FISHER_SAMPLES = 128
# Of the time that is left, scoring takes no more: what is cut then has yet to be fitted, and trained.
LARGEST_SHARE_OF_TIME = 0.5
SCORED, CUT, RECOVERED = 0.5, 0.6, 0.9
# Groups in an error: enough to see how they are named.
MOST_NAMED = 20

FAILED_AGAIN = (
    "Without the units that were chosen the model could not be called with batches of another size: units stay."
)
NOT_TRAINED = "No time was left to train: units or blocks were taken out and nothing was trained."


class NoSuchGroup(UserFault):
    code, title = "no_such_group", "The recipe names units that the model does not have"


class NoSuchBlock(UserFault):
    code, title = "no_such_block", "The recipe names a block that the model does not have"


@dataclass(frozen=True)
class Work:
    """One run of the pass."""

    subject: Subject
    config: PruneStructured
    context: PassContext

    @property
    def limits(self) -> Limits:
        return Limits(self.config.largest_share, self.config.multiple)

    @property
    def compares_groups(self) -> bool:
        """Whether units of different groups go by one threshold."""
        return self.config.ratios is None and (self.config.ratio is None or self.config.scope == "global")

    def without(self, steps: Sequence[Step]) -> Rest:
        return self.subject.without(steps, self.context.scratch / f"without-{len(steps)}-blocks")


@dataclass(frozen=True)
class Removal:
    """What goes: the blocks that `rest` is without, and units of it. `reached`: whether it is as much as was asked."""

    rest: Rest
    timed: Timed
    reached: bool = True

    @property
    def is_nothing(self) -> bool:
        return not self.rest.steps and not self.timed.choice.count


@dataclass(frozen=True)
class Made:
    """A removal, carried out."""

    removal: Removal
    model: ModelFile
    notes: list[str]


def apply(model: ModelFile, config: PruneStructured, context: PassContext) -> PassResult:
    """Notes say which blocks went, by group what is left, what stays whole and why, and what least squares gained.

    Raises:
        NoSuchBlock, NoSuchGroup: `given` or `ratios` is not of this model.
        UncountableModel: `target` goes by multiply-accumulates, and none can be counted.

    """
    context.phase("preparing")
    structure = model.structure()
    kind = "8 bits" if is_quantized(structure) else "half precision" if computes_in_half(structure) else None
    if kind is not None:
        return PassResult(model, False, [f"The model computes in {kind} already: nothing was taken out."])
    work = Work(Subject.of(model, context, config.exclude), config, context)
    if config.weighs_macs:
        work.subject.check_countable()
    context.check_time("pruning")
    context.phase("pruning")
    made = _with_either(work) if config.scores_blocks and config.scores_units else _made(work, _chosen(work))
    removal = made.removal
    notes = [*account.uncounted(work.subject), *unknown_nodes(config.exclude, model.structure())]
    notes += account.left_alone(removal.rest, config)
    if removal.is_nothing:
        return PassResult(model, False, [*notes, *removal.timed.notes, account.nothing(work.subject, removal.rest)])
    notes = [
        *account.blocks(work.subject, removal.rest),
        *account.widths(removal.rest, removal.timed.choice),
        *account.macs(work.subject, removal.rest, removal.timed.choice),
        *removal.timed.notes,
        *made.notes,
        *notes,
    ]
    manifest = account.manifest(work.subject, removal.rest, removal.timed) | {"replay": _pinned(config, removal)}
    result = made.model
    if config.training is not None:
        # Here and not above: pruning does without torch.
        from worker.engine.training.learning import learn_behind  # noqa: PLC0415

        context.checkpoints.settle(manifest["replay"])
        result = learn_behind(result, context.original or model, config.training, context, notes, manifest, NOT_TRAINED)
    context.progress(1.0)
    return PassResult(result, True, notes, manifest)


def _chosen(work: Work) -> Removal:
    config = work.config
    if config.given is not None:
        return _given(work, config.given)
    if config.blocks is not None:
        return _so_many_blocks(work, config.blocks)
    if config.scores_blocks:
        return _blocks_alone(work)
    rest = work.without([])
    if config.ratio is None and config.ratios is None:
        return _units(work, rest)
    names = [group.name for group in rest.structure.groups]
    shares = config.ratios or dict.fromkeys(names, config.ratio or 0.0)
    _check_groups(shares, names)
    scored = _scored(work, rest)
    if config.ratio is not None and work.compares_groups:
        choice = by_share_of_all(rest.structure, scored.scores, config.ratio, work.limits)
    else:
        choice = by_shares(rest.structure, scored.scores, shares, work.limits)
    return Removal(rest, Timed(choice, scored.notes))


def _check_groups(named: Iterable[str], known: Sequence[str]) -> None:
    missing = [repr(name) for name in named if name not in known]
    if missing:
        groups = ", ".join(known[:MOST_NAMED]) + (", ..." if len(known) > MOST_NAMED else "") or "there are none"
        raise NoSuchGroup(
            f"`ratios` names {', '.join(missing[:MOST_NAMED])}, not one of the groups that can lose units: {groups}.",
            "Name groups of this model that `exclude` does not keep, or give one `ratio` for all.",
        )


def _given(work: Work, given: Sequence[GivenUnits | GivenBlock]) -> Removal:
    blocks = {block.name: block for block in work.subject.blocks.found}
    steps = []
    for one in given:
        if isinstance(one, GivenBlock):
            if one.block not in blocks:
                raise NoSuchBlock(
                    f"`given` takes out the block {one.block!r}, which this model does not have.",
                    "Give blocks as a manifest of the same model records them, or `blocks` or `target`.",
                )
            steps.append(Step(blocks[one.block], None))
    rest = work.without(steps)
    groups = {group.name: group for group in rest.structure.groups}
    removed = {}
    for one in given:
        if isinstance(one, GivenUnits):
            group = groups.get(one.group)
            cohorts = rest.structure.cohorts.get(one.group, [])
            if group is None or max(one.units) >= group.width or any(np.isin(own, one.units).all() for own in cohorts):
                raise NoSuchGroup(
                    f"`given` takes units out of {one.group!r}, which has no such units to spare in this model.",
                    "Give units as a manifest of the same model records them, or `ratio` or `target`.",
                )
            removed[one.group] = np.unique(one.units)
    return Removal(rest, Timed(Choice(removed)))


def _so_many_blocks(work: Work, count: int) -> Removal:
    steps = [step for found in islice(_steps(work), count) for step in found]
    missed = f"{count} blocks were to go; {len(steps)} could."
    return Removal(work.without(steps), Timed(Choice({}), [missed] if 0 < len(steps) < count else []))


def _blocks_alone(work: Work) -> Removal:
    """One after the other, until the target is reached; all that can go where it never is."""
    target, ratios = work.config.target, list[list[float]]()
    rest = work.without([])
    share = 1.0
    for found in _steps(work):
        following = work.without([*rest.steps, *found])
        _forget(rest, work)
        rest = following
        share = work.subject.share(rest, Choice({}))
        if target is not None and target.latency_ratio is not None:
            ratios.append([round(share, 4), round(time_ratio(work.subject.model, rest.model, work.context), 4)])
        if _reaches(work, share, ratios):
            break
    reached = _reaches(work, share, ratios)
    missed = "No more blocks can be taken out, and the target is not reached."
    return Removal(rest, Timed(Choice({}), [] if reached else [missed], ratios), reached)


def _reaches(work: Work, share: float, ratios: list[list[float]]) -> bool:
    target = work.config.target
    if target is not None and target.latency_ratio is not None:
        return bool(ratios) and ratios[-1][1] <= target.latency_ratio
    return target is None or target.mac_ratio is None or share <= target.mac_ratio


def _forget(rest: Rest, work: Work) -> None:
    if rest.model != work.subject.model:
        shutil.rmtree(rest.model.path.parent)


def _steps(work: Work) -> Iterator[list[Step]]:
    subject, context, target = work.subject, work.context, work.config.target
    if not subject.offered:
        return iter(())
    samples = samples_for(subject.blocks, len(subject.offered))
    switches = Switches(subject.model, subject.offered, context, samples, context.scratch / "switches")
    saved = None
    if target is not None:
        by_time = target.latency_ratio is not None
        saved = time_saved(subject.blocks, subject.model, context) if by_time else macs_saved(subject.blocks)
    return Chooser(subject.blocks, subject.offered, switches, context, saved).steps()


def _units(work: Work, rest: Rest) -> Removal:
    """As many units of what is left as the target still asks for."""
    target, full, own = work.config.target, work.subject.macs, rest.left(Choice({}))
    if target is not None and target.latency_ratio is not None:
        return _units_by_time(work, rest, target.latency_ratio)
    share = 1.0 if target is None or target.mac_ratio is None else target.mac_ratio
    if rest.steps and own <= share * full:
        return Removal(rest, Timed(Choice({})))
    scored = _scored(work, rest)
    choice = by_macs(rest.structure, scored.scores, rest.macs, share * full / max(1, own), work.limits)
    left = work.subject.share(rest, choice)
    missed = f"No more can be taken out than leaves {left:.1%} of the multiply-accumulates: {share:.1%} were asked for."
    return Removal(rest, Timed(choice, [*scored.notes, *([missed] if left > share else [])]), left <= share)


def _units_by_time(work: Work, rest: Rest, wanted: float) -> Removal:
    before = time_ratio(work.subject.model, rest.model, work.context) if rest.steps else 1.0
    if before <= wanted or not rest.structure.groups:
        return Removal(rest, Timed(Choice({})), before <= wanted)
    scored, model = _scored(work, rest), work.subject.model
    timed = by_latency(model, rest.model, rest.structure, scored.scores, rest.macs, wanted, work.limits, work.context)
    timed = replace(timed, notes=[*scored.notes, *timed.notes])
    return Removal(rest, timed, min(ratio for _, ratio in timed.ratios) <= wanted)


def _with_either(work: Work) -> Made:
    """Without a block, without one, two and so on, each cut to the target and fitted: the closest to the original.

    Ends where a block more is worse, where blocks alone are enough, and where time for another would be short.
    """
    answers = Answers.of(work.subject.model, work.context, judged_samples(work.context))
    best: tuple[Made, float] | None = None
    started, tried = time.monotonic(), list[str]()
    steps: list[Step] = []
    following = _steps(work)
    for number in range(len(work.subject.offered) + 1):
        scratch = work.context.scratch / f"attempt-{number}"
        scratch.mkdir()
        own = Work(work.subject, work.config, replace(work.context, scratch=scratch, progress=lambda _share: None))
        made = _made(own, _units(own, own.without(steps)))
        fidelity = answers.fidelity(made.model)
        tried.append(f"{len(steps)} blocks {fidelity.in_words()}")
        # Short of the target the next one is nearer to it, whatever it costs.
        if best is not None and best[0].removal.reached and fidelity.sqnr_db <= best[1]:
            break
        best = made, fidelity.sqnr_db
        work.context.progress(RECOVERED * (1 - 2.0 ** -(number + 1)))
        enough = bool(steps) and made.removal.reached and not made.removal.timed.choice.count
        if enough or work.context.lacks(2 * (time.monotonic() - started) / (number + 1)):
            break
        more = next(following, None)
        if more is None:
            break
        steps = [*steps, *more]
    if best is None:
        raise AssertionError("the first attempt is always kept")
    return replace(best[0], notes=[*best[0].notes, f"Tried at the target: {'; '.join(tried)}."])


def _scored(work: Work, rest: Rest) -> Scored:
    config, context = work.config, work.context
    if not rest.structure.groups:
        return Scored({})
    reserve = (1 - LARGEST_SHARE_OF_TIME) * context.seconds_left()

    def is_over() -> bool:
        return context.lacks(reserve)

    if config.importance == "obs":
        samples = config.calibration_samples
        # They take longest of all, and are the same however much is to go: a later pass adds what is missing.
        blocks, excluded = tuple(step.block.name for step in rest.steps), frozenset(config.exclude)
        key = "obs", work.subject.model, blocks, excluded, samples
        scores = context.once(key, Scores)
        known = len(scores)
        obs_scores(rest.structure, rest.model, context, samples, scores, is_over)
        if known < len(scores) == len(rest.structure.groups):
            context.findings[key] = scores
        return completed(rest.structure, scores, together=work.compares_groups)
    if config.importance == "fisher":
        # Here and not above: the other three do without torch.
        from worker.engine.training.fisher import gradient_products  # noqa: PLC0415

        samples = min(FISHER_SAMPLES, config.calibration_samples, context.feeds.sample_count)
        felt = gradient_products(rest.model, context, samples)
        scored = fisher_scores(rest.structure, felt.products, samples, is_over)
        return replace(scored, notes=[*felt.notes, *scored.notes])
    return Scored(magnitude_scores(rest.structure, 1 if config.importance == "l1" else 2))


def _made(work: Work, removal: Removal) -> Made:
    """Cut and, if asked, fitted."""
    rest, choice, context = removal.rest, removal.timed.choice, work.context
    context.progress(SCORED)
    if removal.is_nothing:
        return Made(removal, rest.model, [])
    gone = choice.gone(rest.structure)
    pruned = cut(rest.model, rest.structure, gone, context.scratch / "cut") if choice.count else rest.model
    if choice.count and work.subject.fails_again(pruned, context.threads):
        shutil.rmtree(pruned.path.parent)
        units = replace(removal.timed, choice=Choice({}), notes=[*removal.timed.notes, FAILED_AGAIN])
        return _made(work, Removal(rest, units, reached=False))
    context.progress(CUT)
    if not work.config.recovery:
        return Made(removal, pruned, ["Nothing was fitted behind what was taken out."])
    context.phase("recovering")
    pruned, notes = _with_recurrences(work, rest, gone, pruned)
    kept = rest.structure.kept_channels(gone)
    found = recovered(work.subject.model, pruned, kept, context, context.scratch / "result")
    context.progress(RECOVERED)
    return Made(removal, found.model, [*notes, *found.notes])


def _with_recurrences(work: Work, rest: Rest, gone: np.ndarray, pruned: ModelFile) -> tuple[ModelFile, list[str]]:
    """`pruned`, or the same with what recurrent layers read fitted, where that comes closer to the original."""
    context, folder = work.context, work.context.scratch / "refitted"
    fitted = refitted(rest.model, rest.structure, gone, context, fitted_samples(context), folder)
    if fitted is None:
        return pruned, []
    made = cut(fitted, rest.structure, gone, context.scratch / "cut-refitted")
    shutil.rmtree(folder)
    original = Answers.of(work.subject.model, context, judged_samples(context))
    before, after = original.fidelity(pruned), original.fidelity(made)
    words = f"{after.in_words()} at the outputs, {before.in_words()} as cut"
    if after.sqnr_db <= before.sqnr_db:
        shutil.rmtree(made.path.parent)
        return pruned, [f"Recurrent layers gained nothing by least squares ({words}): left out."]
    shutil.rmtree(pruned.path.parent)
    return made, [f"Recurrent layers were fitted by least squares to what is left of what they read: {words}."]


def _pinned(config: PruneStructured, removal: Removal) -> dict[str, Any]:
    """The arguments that repeat this run's choices without scoring or timing anything."""
    given: list[dict[str, Any]] = [{"block": step.block.name} for step in removal.rest.steps]
    given += [{"group": name, "units": units.tolist()} for name, units in removal.timed.choice.removed.items()]
    unset = {"ratio": None, "ratios": None, "target": None, "blocks": None}
    return config.model_dump(mode="json", by_alias=True) | unset | {"given": given}
