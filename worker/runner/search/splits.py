"""Samples for a search: what calibrates, what trains, what chooses among candidates and what accepts one is disjoint.

Datasets that the user gives for a role serve it; a dataset that must serve several is divided among them, by a
permutation drawn from the seed. Where acceptance saw what was chosen by, the best of many candidates would look better
than it is (C. Dwork et al., The reusable holdout, Science 349, 2015). So what chooses and what accepts is left without
the samples that are, by content, among those of an earlier purpose: in another dataset, or twice in the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from worker.engine.arrays import copy_samples
from worker.engine.feeds import Feeds
from worker.engine.repeated_samples import Samples, distinct, repeated

Arrays = Mapping[str, np.ndarray]
# Parts of a dataset that serves several: most for what needs most, learning first, then deciding with confidence.
PARTS = {"training": 12, "calibration": 2, "selection": 2, "evaluation": 4}
# What ranges and choices need at most; the rest of a dataset decides.
MOST = {"calibration": 1024, "selection": 4096}
# Where a role is given no dataset: whose it shares, the first there is.
SOURCES = {
    "training": ("training",),
    "calibration": ("calibration", "training", "evaluation"),
    "selection": ("evaluation", "calibration", "training"),
    "evaluation": ("evaluation", "calibration", "training"),
}
# Of the roles that decide: those whose samples they must not have, what they do, and what those others do, in words.
EARLIER = {"selection": ("training", "calibration"), "evaluation": ("training", "calibration", "selection")}
DOES = {"selection": "choose", "evaluation": "accept"}
OTHERS_DO = {"selection": "calibrate or train", "evaluation": "calibrate, train or choose"}


@dataclass(frozen=True)
class Given:
    """A dataset as it was given for a role."""

    arrays: Arrays
    feeds: Feeds
    """What of it the model is fed."""
    sha256: str
    """Of its file: one that was uploaded twice is one."""
    name: str
    """What it is called, in words."""

    @property
    def sample_count(self) -> int:
        return min((len(array) for array in self.arrays.values()), default=0)


@dataclass(frozen=True)
class Split:
    """By role, `selection` among them: arrays, the dataset they are of, and in words what was taken of it."""

    arrays: dict[str, dict[str, np.ndarray]]
    sources: dict[str, str]
    words: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    places: dict[str, np.ndarray] = field(default_factory=dict)
    """By role where its samples lie in the dataset, ascending indices, of roles that were given a part of one."""
    shared: set[str] = field(default_factory=set)
    """Roles that use the samples of others as well."""


def split_roles(given: Mapping[str, Given], folder: Path, seed: int, *, trains: bool = True) -> Split:
    """`given` by role; copies go into `folder`. Where nothing is trained no sample is set aside for it."""
    source = {
        role: next(given[one] for one in sources if one in given)
        for role, sources in SOURCES.items()
        if any(one in given for one in sources) and (trains or role != "training")
    }
    split = Split({}, {}, {})
    parts: dict[str, Samples] = {}
    owners: dict[str, Given] = {}
    for number, sha256 in enumerate(dict.fromkeys(one.sha256 for one in source.values())):
        roles = [role for role in PARTS if role in source and source[role].sha256 == sha256]
        owner = source[roles[0]]
        count = owner.sample_count
        divided = divide(count, roles, np.random.default_rng([seed, number]))
        if divided is None:
            split.shared.update(roles)
            split.warnings.append(
                f"There are {count} samples in {owner.name}, too few to divide: {', '.join(roles)} use the same ones, "
                "and nothing was held out."
            )
        for role in roles:
            parts[role] = Samples(owner.feeds, np.arange(count) if divided is None else divided[role])
            owners[role] = owner
    _leave_out(parts, owners, split)
    for role, part in parts.items():
        owner, places = owners[role], part.places
        count, some = owner.sample_count, len(places) < owner.sample_count
        split.arrays[role] = copy_samples(owner.arrays, places, folder / role) if some else dict(owner.arrays)
        if some:
            split.places[role] = places
        split.sources[role] = owner.name
        split.words[role] = f"{owner.name}: {len(places):,}{f' of {count:,}' if some else ''} samples"
    return split


def _leave_out(parts: dict[str, Samples], owners: Mapping[str, Given], split: Split) -> None:
    """Takes out of `parts` what decides nothing, as a part before it has the same; `split` is told."""
    deciding = [role for role in DOES if role in parts and role not in split.shared]
    earlier = {role: [one for one in EARLIER[role] if one in parts] for role in deciding}
    for role, again in repeated(parts, earlier).items():
        of = f"samples of {owners[role].name} to {DOES[role]} by"
        count, left_out = len(again), int(again.sum())
        if left_out == count:
            split.shared.add(role)
            split.warnings.append(f"All {count:,} {of} {OTHERS_DO[role]} as well: nothing was held out.")
        elif left_out:
            parts[role] = parts[role].at(~again)
            split.warnings.append(f"Left out of {count:,} {of}, as the same ones {OTHERS_DO[role]}: {left_out:,}.")
    if "evaluation" in deciding and "evaluation" not in split.shared:
        split.warnings.extend(_copies_in_words(parts["evaluation"], owners["evaluation"].name))


def _copies_in_words(samples: Samples, name: str) -> list[str]:
    """In words, that some of the samples that accept are the same: a list of no or one sentence.

    They stay: of inputs that take few values they are honest draws.
    """
    count, different = len(samples.places), distinct(samples)
    if different == count:
        return []
    return [
        f"Of {count:,} samples of {name} to accept by {different:,} are distinct. Each counts as a draw of its own: "
        "if the others are copies, the bounds of the verdict are too narrow."
    ]


def divide(count: int, roles: list[str], random: np.random.Generator) -> dict[str, np.ndarray] | None:
    """Sorted indices by role, disjoint, every sample in one; None where a role would get none."""
    if len(roles) == 1:
        return {roles[0]: np.arange(count)}
    total = sum(PARTS[role] for role in roles)
    sizes = {role: min(count * PARTS[role] // total, MOST.get(role, count)) for role in roles}
    if min(sizes.values()) < 1:
        return None
    # What is left over goes where more samples help most.
    rest = "training" if "training" in sizes else "evaluation"
    if rest in sizes:
        sizes[rest] += count - sum(sizes.values())
    shuffled = random.permutation(count)
    ends = np.cumsum(list(sizes.values()))
    return {role: np.sort(shuffled[end - size : end]) for (role, size), end in zip(sizes.items(), ends, strict=True)}
