"""What was taken out of a model, in words and for its manifest."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.recipes.structure import GivenUnits, PruneStructured
from worker.engine.structure.block_choice import Step
from worker.engine.structure.removal import Rest, Subject
from worker.engine.structure.selection import Choice
from worker.engine.structure.timing import Timed


def nothing(subject: Subject, rest: Rest) -> str:
    """Why nothing was changed."""
    if rest.structure.groups or subject.offered:
        return "What was asked for leaves everything where it is: nothing was changed."
    return "No unit and no block of the model can be taken out: nothing was changed."


def blocks(subject: Subject, rest: Rest) -> list[str]:
    """Which blocks went, in the order in which they did, and what each cost before anything was fitted."""
    if not rest.steps:
        return []
    scores = ["" if step.sqnr_db is None else f" ({step.sqnr_db} dB)" for step in rest.steps]
    names = ", ".join(step.block.name + score for step, score in zip(rest.steps, scores, strict=True))
    what = f"{len(rest.steps)} of {len(subject.blocks.found)} residual blocks were taken out whole: {names}"
    words = "; in brackets what is left at the outputs then, before anything is fitted." if any(scores) else "."
    return [what + words]


def widths(rest: Rest, choice: Choice) -> list[str]:
    """What groups are left with."""
    if not choice.count:
        return []
    groups = rest.structure.groups
    units = sum(group.width for group in groups)
    first = f"{choice.count:,} of {units:,} units in {len(groups)} groups were taken out."
    left = []
    for group in groups:
        count = len(choice.removed.get(group.name, ()))
        if count:
            what = "units" if group.run == 1 else f"units of {group.run} channels"
            what = "heads" if rest.structure.are_heads(group) else what
            left.append(f"{group.name} {group.width - count + group.frozen} of {group.width + group.frozen} {what}")
    return [first, f"Left: {'; '.join(left)}."]


def macs(subject: Subject, rest: Rest, choice: Choice) -> list[str]:
    """Multiply-accumulates before and after."""
    before, now = subject.macs, rest.left(choice)
    return [f"Multiply-accumulates of a call: {now:,}, before {before:,} ({now / before:.1%})."] if before else []


def uncounted(subject: Subject) -> list[str]:
    """Of how many nodes multiply-accumulates are not known, where they are of others."""
    if not subject.macs or not subject.uncounted:
        return []
    operators = ", ".join(sorted(set(subject.uncounted.values())))
    what = f"Of {len(subject.uncounted)} nodes multiply-accumulates could not be counted ({operators})"
    return [f"{what}: shares of them are of what the other nodes take."]


def left_alone(rest: Rest, config: PruneStructured) -> list[str]:
    """Where units stay, and why; said where any might have gone, or goes as `given`."""
    if not config.scores_units and not any(isinstance(one, GivenUnits) for one in config.given or ()):
        return []
    counts = Counter(rest.structure.reasons.values())
    return [f"Left as they were: units of {count} nodes ({reason})." for reason, count in sorted(counts.items())]


def manifest(subject: Subject, rest: Rest, timed: Timed) -> dict[str, Any]:
    """By group its width before and after, why others stay, which blocks went, and what was timed."""
    removed = timed.choice.removed
    return {
        "blocks": [_block(subject, rest.steps[: number + 1]) for number in range(len(rest.steps))],
        "widths": {
            group.name: [group.width, group.width - len(removed.get(group.name, ()))] for group in rest.structure.groups
        },
        "left_alone": dict(sorted(rest.structure.reasons.items())),
        "ratios": timed.ratios,
    }


def _block(subject: Subject, steps: Sequence[Step]) -> dict[str, Any]:
    """Of the last of these: its nodes, what it saves, and what is left at the outputs without it and those before."""
    every, before = ([step.block for step in steps[:end]] for end in (len(steps), -1))
    nodes = subject.blocks.gone(every) - subject.blocks.gone(before)
    counts = [subject.blocks.count(one).macs for one in (before, every)]
    saved = None if nodes & subject.uncounted.keys() else counts[0] - counts[1]
    last = steps[-1]
    return {"block": last.block.name, "nodes": sorted(nodes), "macs": saved, "sqnr_db": last.sqnr_db}
