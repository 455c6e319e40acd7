"""Samples for a search: what calibrates, what trains, what chooses among candidates and what accepts one is disjoint.

Datasets that the user gives for a role serve it; a dataset that must serve several is divided among them, by a
permutation drawn from the seed. Where acceptance saw what was chosen by, the best of many candidates would look better
than it is (C. Dwork et al., The reusable holdout, Science 349, 2015).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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
COPY_BYTES = 16 << 20


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


def split_roles(
    given: Mapping[str, Arrays],
    files: Mapping[str, str],
    names: Mapping[str, str],
    folder: Path,
    seed: int,
    *,
    trains: bool = True,
) -> Split:
    """`files` says by role which file holds its arrays, by its hash: one that was uploaded twice is one. `names` says
    what it is called; copies go into `folder`. Where nothing is trained no sample is set aside for it.
    """
    source = {
        role: next(one for one in sources if one in given)
        for role, sources in SOURCES.items()
        if any(one in given for one in sources) and (trains or role != "training")
    }
    split = Split({}, {}, {})
    for number, path in enumerate(dict.fromkeys(files[one] for one in source.values())):
        roles = [role for role in PARTS if role in source and files[source[role]] == path]
        owner = source[roles[0]]
        name, arrays = names[owner], given[owner]
        count = min((len(array) for array in arrays.values()), default=0)
        parts = divide(count, roles, np.random.default_rng([seed, number]))
        if parts is None:
            split.shared.update(roles)
            split.warnings.append(
                f"There are {count} samples in {name}, too few to divide: {', '.join(roles)} use the same ones, and "
                "nothing was held out."
            )
        for role in roles:
            chosen = None if parts is None else parts[role]
            split.arrays[role] = (
                dict(arrays) if chosen is None else _copied(arrays, chosen, folder / f"{number}-{role}")
            )
            if chosen is not None and len(chosen) < count:
                split.places[role] = chosen
            split.sources[role] = name
            of = "" if chosen is None or len(chosen) == count else f" of {count:,}"
            split.words[role] = f"{name}: {count if chosen is None else len(chosen):,}{of} samples"
    return split


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


def _copied(arrays: Arrays, samples: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """These samples, on disk: memory does not grow with the data."""
    folder.mkdir(parents=True)
    copies = {}
    for number, (name, array) in enumerate(arrays.items()):
        shape = (len(samples), *array.shape[1:])
        if array.size == 0:
            copies[name] = np.zeros(shape, array.dtype)
            continue
        copy = np.memmap(folder / f"{number}.bin", dtype=array.dtype, mode="w+", shape=shape)
        step = max(1, COPY_BYTES * len(array) // array.nbytes)
        for start in range(0, len(samples), step):
            copy[start : start + step] = array[samples[start : start + step]]
        copies[name] = np.asarray(copy)
    return copies
