"""How much of the original is left in a changed file, at its outputs."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from worker.engine.evaluation.metrics import EXACT, agreement, looks_like_scores
from worker.engine.extent import Extent
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import open_session, run_session

# More than this stands for no noise at all.
LARGEST_DB = 200.0
# A sample that comes out otherwise is wrong now about as often as it was wrong before: drops are a third of changes.
CHANGES_A_DROP = 3.0
# Of answers that are held at once: 16 of a language model to 128 tokens each.
MOST_HELD_BYTES = 256 << 20
# What an element adds to the noise that is NaN or infinite where the exact result is finite throughout: more than any
# float32 would.
BROKEN = 1e200


@dataclass
class Power:
    """Sums of squares of a signal and of what differs from it."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: np.ndarray, made: np.ndarray) -> None:
        """Floats of any shape. Finite elements of `exact` are signal; what is noise goes element by element:

        1. Finite in both: the square of the difference.
        2. Not finite and alike in both, NaN and NaN or the same infinity: none.
        3. Not finite any more, where `exact` is finite throughout: the file is broken, and `BROKEN` an element.
        4. Any other, beside what is not finite in `exact` either, as where a model masks: an element is lost, and the
           mean square of the finite ones, or 1 where they are silent. None where `exact` has no finite element.
        5. Of another shape, as of boxes that were found: no elements correspond, and all of both is noise.
        """
        exact, made = exact.astype(np.float64), made.astype(np.float64)
        finite, still_finite = np.isfinite(exact), np.isfinite(made)
        signal = _squares(exact[finite])
        self.signal += signal
        if made.shape != exact.shape:  # 5
            self.noise += signal + _squares(made[still_finite])
            return
        both = finite & still_finite
        self.noise += _squares(made[both] - exact[both])  # 1
        alike = (made == exact) | (np.isnan(made) & np.isnan(exact))  # 2
        lost = int((~both & ~alike).sum())
        if finite.all():  # 3
            self.noise += lost * BROKEN
        elif finite.any():  # 4
            self.noise += lost * (signal / int(finite.sum()) or 1.0)

    @property
    def db(self) -> float:
        """Signal to quantization noise ratio, dB."""
        if self.noise == 0 or self.signal == 0:
            return LARGEST_DB if self.noise == 0 else -LARGEST_DB
        return float(np.clip(10 * np.log10(self.signal / self.noise), -LARGEST_DB, LARGEST_DB))


def _squares(values: np.ndarray) -> float:
    return float(np.square(values).sum())


def typical_db(samples: Sequence[Power]) -> float:
    """Of an output: over all samples, or of the one in the middle where that is less.

    Few loud samples would otherwise speak for all: what they hide may be noise from end to end. Silent ones, without a
    signal, have no ratio of their own.
    """
    pooled = Power(sum(one.signal for one in samples), sum(one.noise for one in samples))
    each = [one.db for one in samples if one.signal]
    return min(pooled.db, float(np.median(each))) if each else pooled.db


@dataclass(frozen=True)
class Floor:
    """What a file must keep of its original on calibration samples."""

    sqnr_db: float
    agreement: float | None = None

    @classmethod
    def of(cls, sqnr_db: float, max_drop: float | None) -> Self:
        """With what a contract means for agreement, where there is one."""
        return cls(sqnr_db, None if max_drop is None else 1 - CHANGES_A_DROP * max_drop)

    def in_words(self) -> str:
        """`10 dB and 97.0 % agreement`."""
        text = f"{self.sqnr_db:g} dB"
        return text if self.agreement is None else f"{text} and {100 * self.agreement:.1f} % agreement"


@dataclass(frozen=True)
class Fidelity:
    """Each that of the worst output. `sqnr_db` is, as `typical_db` has it, that of floats; of whole numbers and text
    where there are no floats: those that changed are the noise; and `-LARGEST_DB`, which holds no floor, where nothing
    could be compared. `agreement` is the share of samples with the same top class, or of whole numbers and texts that
    are the same; None where outputs hold none of these.
    """

    sqnr_db: float
    agreement: float | None

    def holds(self, floor: Floor) -> bool:
        enough = floor.agreement is None or self.agreement is None or self.agreement >= floor.agreement
        return enough and self.sqnr_db >= floor.sqnr_db

    def in_words(self) -> str:
        """`24.1 dB, 98.4 % agreement`."""
        text = f"{self.sqnr_db:.1f} dB"
        return text if self.agreement is None else f"{text}, {100 * self.agreement:.1f} % agreement"


@dataclass(frozen=True)
class Answers:
    """What a model answers to a few samples of the context's data, a call each: what many files are compared with."""

    context: PassContext
    samples: np.ndarray
    outputs: list[list[Any]]

    @classmethod
    def of(cls, model: ModelFile, context: PassContext, samples: np.ndarray) -> Self:
        """To these samples (indices), those past the end left out; to the first of them where all would not be held.

        Raises:
            ModelFails: a call fails.

        """
        chosen = samples[samples < context.feeds.sample_count]
        outputs = held_answers(_outputs(model, context, chosen))
        return cls(context, chosen[: len(outputs) * context.feeds.samples_per_call(1)], outputs)

    def fidelity(self, made: ModelFile) -> Fidelity:
        """How much of the answers is left in those of another file.

        Raises:
            ModelFails: a call fails.

        """
        compared = _Compared()
        for exact, given in zip(self.outputs, _outputs(made, self.context, self.samples), strict=True):
            compared.add(exact, given)
        return compared.fidelity()


@dataclass
class _Compared:
    """What differs between the outputs of two files, call by call."""

    powers: dict[int, list[Power]] = field(default_factory=dict)
    """By the output's number, of each call, where that holds floats."""
    same: dict[int, list[float]] = field(default_factory=dict)
    """By the output's number, of each sample where that holds scores of classes; of each call the share of whole
    numbers, or of texts.
    """

    def add(self, exact: list[Any], made: list[Any]) -> None:
        for index, (left, right) in enumerate(zip(exact, made, strict=True)):
            if not isinstance(left, np.ndarray):
                continue
            if left.dtype.kind == "f":
                power = Power()
                power.add(left, right)
                self.powers.setdefault(index, []).append(power)
                if looks_like_scores(left):
                    self.same.setdefault(index, []).extend(agreement(left, right).tolist())
            elif left.dtype.kind in EXACT:
                self.same.setdefault(index, []).append(_share_of_same(left, right))

    def fidelity(self) -> Fidelity:
        powers = self.powers or {
            index: [Power(1.0, 1.0 - share) for share in shares] for index, shares in self.same.items()
        }
        worst = min(map(typical_db, powers.values()), default=-LARGEST_DB)
        agreement = min((sum(shares) / len(shares) for shares in self.same.values() if shares), default=None)
        return Fidelity(worst, agreement)


def held_answers(calls: Iterable[list[Any]]) -> list[list[Any]]:
    """The outputs of as many calls as `MOST_HELD_BYTES` hold, from the first on; of one at least."""
    held, size = list[list[Any]](), 0
    for outputs in calls:
        size += sum(one.nbytes for one in outputs if isinstance(one, np.ndarray))
        if held and size > MOST_HELD_BYTES:
            break
        held.append(outputs)
    return held


def _outputs(model: ModelFile, context: PassContext, samples: np.ndarray) -> Iterator[list[Any]]:
    """Of each call."""
    session = open_session(model.path, context.threads)
    for call in context.feeds.calls(1, samples):
        yield run_session(session, call.feed)


def _share_of_same(left: np.ndarray, right: np.ndarray) -> float:
    if left.shape != right.shape:
        return 0.0
    return float((left == right).mean()) if left.size else 1.0


def measure_fidelity(
    original: ModelFile, made: ModelFile, context: PassContext, samples: np.ndarray, seconds: float = math.inf
) -> Fidelity:
    """Both files on these samples (indices, those past the end left out) of the context's data: as many as there is
    time for in `seconds`, those of one call at least.

    No more than one call's answers are held: those of a language model take a gigabyte for a few dozen samples.

    Raises:
        ModelFails: a call fails.

    """
    chosen, compared = samples[samples < context.feeds.sample_count], _Compared()
    started, read, extent = time.monotonic(), 0, Extent(seconds=seconds)
    for exact, given in zip(_outputs(original, context, chosen), _outputs(made, context, chosen), strict=True):
        compared.add(exact, given)
        read = min(read + context.feeds.samples_per_call(1), len(chosen))
        if read < len(chosen) and extent.ends(read, time.monotonic() - started, context):
            break
    return compared.fidelity()
