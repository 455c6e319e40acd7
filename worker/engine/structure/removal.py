"""A model that is to lose something: its blocks, and what is left of it without some of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.engine.faults import UserFault
from worker.engine.graph import name_nodes, qualified
from worker.engine.inspection.macs import count_nodes
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import Feed, ModelFails, open_session, run_session, session_options
from worker.engine.structure.block_choice import Step
from worker.engine.structure.blocks import Block, Blocks
from worker.engine.structure.bypassing import bypass
from worker.engine.structure.groups import Structure, find_structure
from worker.engine.structure.propagation import read_graph
from worker.engine.structure.selection import Choice, Macs
from worker.engine.structure.sizes import Sizes, measured_sizes

# A batch of another size shows what has an axis of samples and what is broadcast along it.
SECOND_BATCH = 2


# They make as much as their values say.
SIZED_BY_VALUES = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress", "If", "Loop", "Scan"})


class UncountableModel(UserFault):
    code, title = "uncountable_model", "The multiply-accumulates of the model cannot be counted"


@dataclass(frozen=True)
class Rest:
    """The model without some blocks, and its units."""

    steps: Sequence[Step]
    model: ModelFile
    structure: Structure
    macs: Macs

    def left(self, choice: Choice) -> int:
        """Multiply-accumulates of a call without these units as well, of nodes of which they can be counted."""
        return self.macs.of(self.structure, choice)


@dataclass(frozen=True)
class Again:
    """A call, and the size of every tensor in it."""

    feed: Feed
    sizes: Sizes


@dataclass(frozen=True)
class Subject:
    """`offered` are those of `blocks` that may go; nodes that are `excluded` by name stay, and units tied to them."""

    model: ModelFile
    sizes: Sizes
    blocks: Blocks
    offered: list[Block]
    excluded: frozenset[str]
    macs: int
    """Multiply-accumulates of a call, of the nodes of which they can be counted."""
    uncounted: dict[str, str]
    """The operators of all other nodes that multiply matrices, by their names."""
    again: Again | None = None
    """A call of another batch size, where the model and the data have one."""

    @classmethod
    def of(cls, model: ModelFile, context: PassContext, excluded: Collection[str]) -> "Subject":
        """The model with the shapes of all tensors in the timed call, its blocks, and its multiply-accumulates.

        Raises:
            ModelFails: a call fails.

        """
        first, second = context.timed_feed(), None
        sizes = measured_sizes(model, first, context.scratch / "sizes", context.threads)
        measured = [sizes]
        batch = SECOND_BATCH + any(len(array) == SECOND_BATCH for array in first.values() if array.ndim)
        if context.feeds.samples_per_call(batch) == batch and context.feeds.sample_count >= batch:
            second = context.feeds.call(np.arange(batch)).feed
            measured.append(measured_sizes(model, second, context.scratch / "sizes-again", context.threads))
        proto = model.structure()
        name_nodes(proto)
        blocks = Blocks(proto.graph, measured)
        count = count_nodes(proto.graph.node, {name: list(size) for name, size in sizes.items()})
        uncounted = {node.name: qualified(node) for node in count.uncounted}
        again = None if second is None else Again(second, measured[1])
        offered = blocks.without(excluded)
        return cls(model, sizes, blocks, offered, frozenset(excluded), count.macs, uncounted, again)

    @property
    def left_without_blocks(self) -> float:
        """Share of the multiply-accumulates of a call once all blocks that are offered are gone, but for one where
        nothing would be multiplied otherwise.
        """
        blocks = self.offered if self.blocks.leaves_products(self.offered) else self.offered[:-1]
        return self.blocks.count(blocks).macs / self.macs if self.macs else 1.0

    def share(self, rest: Rest, choice: Choice) -> float:
        """Multiply-accumulates of a call that are left, over those of the model; 1 where none can be counted."""
        return rest.left(choice) / self.macs if self.macs else 1.0

    def check_countable(self) -> None:
        """Raises UncountableModel where nothing that is multiplied can be counted."""
        if self.uncounted and not self.macs:
            raise UncountableModel(
                f"`target` chooses units by multiply-accumulates, and of this model's operators that multiply matrices "
                f"({', '.join(sorted(set(self.uncounted.values())))}) none can be counted.",
                'Give `ratio` or `blocks` in place of `target`, or `latency_ratio` with `"remove": ["blocks"]`.',
            )

    def fails_again(self, made: ModelFile, threads: int) -> bool:
        """Whether `made` of it cannot be called with batches of another size, or answers in other shapes then."""
        if self.again is None:
            return False
        names = [value.name for value in self.model.structure().graph.output]
        try:
            session = open_session(made.path, threads, session_options(threads))
            answers = run_session(session, self.again.feed, names)
        except ModelFails:
            return True
        compared = self.again.sizes.keys() - _sized_by_values(self.model)
        found = {name: answer for name, answer in zip(names, answers, strict=True) if name in compared}
        return any(np.shape(answer) != self.again.sizes[name] for name, answer in found.items())

    def without(self, steps: Sequence[Step], folder: Path) -> Rest:
        """What is left once these blocks are gone, in the empty `folder`; the model itself where none are."""
        model = bypass(self.model, [step.block for step in steps], folder) if steps else self.model
        structure = find_structure(read_graph(model), self.sizes)
        return Rest(steps, model, structure.without(self.excluded), Macs(model.structure()))


def _sized_by_values(model: ModelFile) -> set[str]:
    """Tensors whose shapes may follow values, and so differ once units are gone."""
    found: set[str] = set()
    for node in model.structure().graph.node:
        if node.op_type in SIZED_BY_VALUES or found & set(node.input):
            found.update(node.output)
    return found
