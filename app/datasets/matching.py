"""How data meets a model, by names, dtypes and shapes alone: asked when a job is submitted, and when it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.datasets.inspection import ArraySpec
from app.errors import DataMismatch
from app.jobs.naming import named

Axes = Sequence[int | str | None]
TEXT = "string"
WIDEST = frozenset({"float64", "complex128"})
WIDE = WIDEST | {"float32", "complex64"}
FLOATING = WIDE | {"float16", "bfloat16"}
WITHOUT_LOSS: dict[str, frozenset[str]] = {
    "int8": FLOATING | {"int16", "int32", "int64"},
    "int16": WIDE | {"int32", "int64"},
    "int32": WIDEST | {"int64"},
    "int64": WIDEST,
    "uint8": FLOATING | {"uint16", "uint32", "uint64", "int16", "int32", "int64"},
    "uint16": WIDE | {"uint32", "uint64", "int32", "int64"},
    "uint32": WIDEST | {"uint64", "int64"},
    "uint64": WIDEST,
    "float16": WIDE,
    "bfloat16": WIDE,
    "float32": WIDEST | {"complex64"},
    "float64": frozenset({"complex128"}),
    "complex64": frozenset({"complex128"}),
}
"""By the dtype of an array, those of inputs that it may be cast to: numpy's safe casts between numbers."""
ROUNDED = frozenset({("float64", "float32")})


class Input(Protocol):
    """One input of a model: dtype as numpy names it, or `string`; shape None: the rank is unknown."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> Axes | None: ...


@dataclass(frozen=True)
class Matching:
    """Arrays that go into a model's inputs.

    Those of the inputs in `whole` have one axis more than their input: `array[i]` is the whole feed of call `i`. Of the
    others the first axis counts samples, of which a call takes `fixed_batch`; None: any number.
    """

    whole: frozenset[str]
    fixed_batch: int | None
    casts: tuple[str, ...]
    """In words, arrays that are cast to the dtype of their input."""


def match(inputs: Sequence[Input], arrays: Sequence[ArraySpec], source: str) -> Matching:
    """Bind arrays to inputs by name; `source` says in words whose arrays they are. Other arrays are left alone.

    Raises:
        DataMismatch: an input takes text, or has no array; the dtype, the rank or the axes of one do not fit its input;
            or the inputs want different numbers of samples a call.

    """
    by_name = {array.name: array for array in arrays}
    whole: set[str] = set()
    batches: dict[str, int] = {}
    casts: list[str] = []
    for spec in inputs:
        if spec.dtype == TEXT:
            raise DataMismatch(
                f"The input `{spec.name}` is {_words(spec)}, and datasets hold no text: {source} cannot feed it.",
                remedy="Export the part of the model behind what turns text into numbers, or submit without data.",
            )
        if spec.name not in by_name:
            raise DataMismatch(
                f"There is no array of {source} for the input `{spec.name}` ({_words(spec)}); its arrays are "
                f"{named(list(by_name)) or 'none'}.",
                remedy="Name each array as the model's input.",
            )
        array = by_name[spec.name]
        _check_axes(spec, array, source)
        casts += _cast(spec, array, source)
        if _is_whole(spec, array):
            whole.add(spec.name)
        elif spec.shape and isinstance(spec.shape[0], int):
            batches[spec.name] = _samples_a_call(spec, spec.shape[0])
    _check_batches(whole, batches, source)
    return Matching(frozenset(whole), None if whole else next(iter(batches.values()), None), tuple(casts))


def _is_whole(spec: Input, array: ArraySpec) -> bool:
    """Whether each entry of the array is one feed, with all of the input's axes."""
    return spec.shape is not None and len(array.shape) == len(spec.shape) + 1


def _samples_a_call(spec: Input, fixed: int) -> int:
    if not fixed:
        raise DataMismatch(
            f"The input is {_words(spec)}: the model takes no samples along the first axis of `{spec.name}`.",
            remedy="Export that axis as open; or, where it counts no samples, give the array one axis more.",
        )
    return fixed


def fits(given: Axes, wanted: Axes) -> bool:
    """Whether sizes are as many as wanted, and as wanted where that is a number."""
    return len(given) == len(wanted) and all(
        not isinstance(want, int) or have == want for have, want in zip(given, wanted, strict=True)
    )


def _check_axes(spec: Input, array: ArraySpec, source: str) -> None:
    if spec.shape is None:
        return
    # The first axis of an array of the input's own rank counts samples, whatever the model's batch.
    wanted = spec.shape if _is_whole(spec, array) else spec.shape[1:]
    if len(array.shape) < len(spec.shape) or not fits(array.shape[1:], wanted):
        raise DataMismatch(
            f"The array `{array.name}` of {source} is {_words(array)}; the input is {_words(spec)}.",
            remedy="Give as many axes as the input (the first counts samples), or one more (each entry is one feed); "
            "the axes that the model fixes must be as it has them.",
        )


def _cast(spec: Input, array: ArraySpec, source: str) -> list[str]:
    """In words, how the array is cast: a list of no or one sentence. Raises DataMismatch."""
    given, wanted = array.dtype, spec.dtype
    if given == wanted:
        return []
    if (given, wanted) in ROUNDED:
        return [f"Array `{array.name}` of {source} is {given} and was rounded to the input's {wanted}."]
    if wanted in WITHOUT_LOSS.get(given, ()):
        return [f"Array `{array.name}` of {source} is {given}; every value was cast to {wanted} without loss."]
    raise DataMismatch(
        f"The array `{array.name}` of {source} is {_words(array)}; the input is {_words(spec)}, and not every {given} "
        f"is a {wanted}.",
        remedy=f"Save the array as {wanted}.",
    )


def _check_batches(whole: set[str], batches: dict[str, int], source: str) -> None:
    fixed = ", ".join(f"`{name}` {size}" for name, size in batches.items())
    if whole and any(size != 1 for size in batches.values()):
        raise DataMismatch(
            f"Each entry of {named(sorted(whole))} of {source} is one call of one sample, and the model fixes another "
            f"number of samples a call: {fixed}.",
            remedy="Give every array one axis more than its input.",
        )
    if not whole and len(set(batches.values())) > 1:
        raise DataMismatch(
            f"The inputs fix different batch sizes: {fixed}.",
            remedy="Give the arrays of inputs whose first axis is no batch axis one axis more: each entry is one feed.",
        )


def _words(tensor: Input) -> str:
    shape = "of unknown rank" if tensor.shape is None else str(["?" if axis is None else axis for axis in tensor.shape])
    return f"{tensor.dtype} {shape}"
