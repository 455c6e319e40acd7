"""The inspection of a dataset: the headers first, then every byte, without holding more than a piece of it."""

from collections.abc import Callable
from pathlib import Path

from app.datasets.inspection import ArraySpec, DatasetInspection
from worker.engine import arrays, npz, safetensors_file
from worker.engine.dataset_faults import (
    NoArrays,
    NoSamples,
    OverlongName,
    ScalarArray,
    TooManyArrays,
    UnequalLengths,
)
from worker.engine.inspection import bounds

FIRST_AXIS = "The first axis of every array counts samples, and all arrays hold the same number of them."


def inspect(path: Path, max_unpacked_bytes: int, progress: Callable[[float], None]) -> DatasetInspection:
    """Names, dtypes and shapes of the arrays. `progress` is told the share read, 0 to 1.

    Raises:
        UserFault: the file is no dataset, damaged, too large once unpacked, or its arrays do not belong together.

    """
    if arrays.sniff(path) == arrays.SAFETENSORS:
        entries = safetensors_file.read_entries(path)
        found = [_spec(entry.name, str(entry.dtype.name), entry.shape) for entry in entries]
        return _inspection(found)
    members = npz.read_members(path, max_unpacked_bytes)
    inspection = _inspection([_spec(member.name, str(member.dtype.name), member.shape) for member in members])
    _verify(path, members, progress)
    return inspection


def _spec(name: str, dtype: str, shape: tuple[int, ...]) -> ArraySpec:
    return ArraySpec(name=name, dtype=dtype, shape=list(shape))


def _inspection(specs: list[ArraySpec]) -> DatasetInspection:
    if not specs:
        raise NoArrays("The file holds no arrays.", "Save one array per model input, by the input's name.")
    for spec in specs:
        if not spec.shape:
            raise ScalarArray(f"Array {spec.name!r} has no axes.", FIRST_AXIS)
    lengths = {spec.name: spec.shape[0] for spec in specs}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {length:,}" for name, length in list(lengths.items())[:20])
        raise UnequalLengths(f"Samples differ: {shown}.", FIRST_AXIS)
    if specs[0].shape[0] == 0:
        raise NoSamples("The arrays have a first axis of length 0.", FIRST_AXIS)
    bounds.check_names((spec.name for spec in specs), "an array", OverlongName)
    inspection = DatasetInspection(arrays=specs, sample_count=specs[0].shape[0])
    size_bytes = bounds.excess_bytes(inspection)
    if size_bytes is not None:
        raise TooManyArrays(
            f"Names and shapes of the {len(specs):,} arrays take {size_bytes:,} bytes; "
            f"{bounds.MAX_INSPECTION_BYTES:,} is the most accepted.",
            "Give one array per model input or label, its first axis counting samples.",
        )
    return inspection


def _verify(path: Path, members: list[npz.Member], progress: Callable[[float], None]) -> None:
    total = max(1, sum(member.data_bytes for member in members))
    seen = 0
    told = 0.0

    def report(size: int) -> None:
        nonlocal seen, told
        seen += size
        if seen / total >= told + 0.05 or seen == total:
            told = seen / total
            progress(told)

    npz.verify(path, members, report)
