"""Which blocks go: one after the other, each time what outputs miss least, scored anew without those that are gone.

What is missed is measured at the outputs, on samples without labels, while a block is bypassed, as in B.-K. Kim et al.,
Shortened LLaMA, https://arxiv.org/abs/2402.02834, where it is perplexity, and all blocks are scored once.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np

from worker.engine.fidelity import Power, held_answers
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import open_session, run_session
from worker.engine.structure.blocks import Block, Blocks
from worker.engine.structure.bypassing import with_switches
from worker.engine.timing import profiled

MOST_SAMPLES, LEAST_SAMPLES = 64, 8
# Of one round, in which every block is bypassed once: about ten seconds of a core.
ROUND_MACS = 1e12
LEAST_ERROR = 1e-20
Saved = Callable[[Collection[Block]], float]
"""What a call is spared without these blocks, in some unit."""


@dataclass(frozen=True)
class Step:
    """One block that goes; `error` is the power of the error at the outputs, as a share of theirs, with it gone and all
    of the steps before.
    """

    block: Block
    error: float | None
    """None where a recipe said that it goes, and nothing was scored."""

    @property
    def sqnr_db(self) -> float | None:
        """The same as a ratio of signal to noise."""
        return None if self.error is None else round(float(-10 * np.log10(max(self.error, LEAST_ERROR))), 2)


class Switches:
    """The outputs of a model while some of its blocks are bypassed, against its own. One session does for all.

    On the first `samples`, or as many of them as can be held.
    """

    def __init__(self, model: ModelFile, blocks: Sequence[Block], context: PassContext, samples: int, folder: Path):
        made, self._names = with_switches(model, blocks, folder)
        self._context, self._samples = context, np.arange(min(samples, context.feeds.sample_count))
        self._session = open_session(made.path, context.threads)
        self._exact = held_answers(self._answers(()))
        self._samples = self._samples[: len(self._exact) * context.feeds.samples_per_call(1)]

    def error(self, bypassed: Collection[Block]) -> float:
        """Of the worst output.

        Raises:
            ModelFails: a call fails.

        """
        powers: dict[int, Power] = {}
        for exact, made in zip(self._exact, self._answers(bypassed), strict=True):
            for index, (left, right) in enumerate(zip(exact, made, strict=True)):
                power = powers.setdefault(index, Power())
                if left.dtype.kind == "f":
                    power.add(left, right)
                else:  # numbers of classes, say: as far as they are others, all of them where there are more or fewer
                    power.signal += left.size
                    power.noise += float((left != right).sum()) if left.shape == right.shape else left.size
        return max((10 ** (-power.db / 10) for power in powers.values()), default=0.0)

    def _answers(self, bypassed: Collection[Block]) -> Iterator[list[np.ndarray]]:
        switches = {name: np.array(block not in bypassed) for block, name in self._names.items()}
        for call in self._context.feeds.calls(1, self._samples):
            yield [np.asarray(output) for output in run_session(self._session, call.feed | switches)]


@dataclass
class Chooser:
    """`saved`: what counts is the error over what is saved, and two blocks that follow each other may go at once; None:
    the error alone.
    """

    blocks: Blocks
    offered: list[Block]
    switches: Switches
    context: PassContext
    saved: Saved | None = None
    _gone: list[Block] = field(default_factory=list)

    def steps(self) -> Iterator[list[Step]]:
        """What goes next, as long as something can and there is time: a block, or two.

        Raises:
            BudgetExhausted: no time is left.
            ModelFails: a call fails.

        """
        error = 0.0
        while candidates := self._candidates():
            if self._gone and self.context.lacks(0.0):
                return
            self.context.check_time("scoring blocks")
            errors = [self.switches.error([*self._gone, *candidate]) for candidate in candidates]
            costs = [self._cost(candidate, now - error) for candidate, now in zip(candidates, errors, strict=True)]
            best = int(np.argmin(costs))
            error = errors[best]
            self._gone += candidates[best]
            yield [Step(block, error) for block in candidates[best]]

    def _candidates(self) -> list[tuple[Block, ...]]:
        """Without those whose nodes went with another's, and what would leave nothing that multiplies."""
        before = self.blocks.gone(self._gone)
        left = [block for block in self.offered if block.name not in before]
        found: list[tuple[Block, ...]] = [(block,) for block in left]
        if self.saved is not None:
            found += [pair for pair in permutations(left, 2) if self.blocks.follows(*pair)]
        return [one for one in found if self.blocks.leaves_products([*self._gone, *one])]

    def _cost(self, candidate: tuple[Block, ...], error: float) -> float:
        if self.saved is None:
            return error
        spared = self.saved([*self._gone, *candidate]) - self.saved(self._gone)
        return error / spared if spared > 0 else np.inf


def samples_for(blocks: Blocks, count: int) -> int:
    """How many samples one of `count` blocks is scored on."""
    macs = max(1, blocks.count().macs * count)
    return int(np.clip(ROUND_MACS // macs, LEAST_SAMPLES, MOST_SAMPLES))


def macs_saved(blocks: Blocks) -> Saved:
    """Multiply-accumulates, of nodes of which they can be counted."""
    whole = blocks.count().macs

    def saved(bypassed: Collection[Block]) -> float:
        return float(whole - blocks.count(bypassed).macs)

    return saved


def time_saved(blocks: Blocks, model: ModelFile, context: PassContext) -> Saved:
    """Milliseconds of the kernels that go, as one profile of the whole model has them.

    Raises:
        ModelFails: the model does not run.

    """
    times = profiled(model, context)
    makers = blocks.names_of_outputs()

    def saved(bypassed: Collection[Block]) -> float:
        gone = blocks.gone(bypassed)
        return sum(time.milliseconds for time in times if makers.get(time.origin, time.origin) in gone)

    return saved
