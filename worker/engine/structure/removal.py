"""A model that is to lose something: its blocks, and what is left of it without some of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.engine.graph import name_nodes
from worker.engine.inspection.macs import count_macs
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.structure.block_choice import Step
from worker.engine.structure.blocks import Block, Blocks
from worker.engine.structure.bypassing import bypass
from worker.engine.structure.groups import Structure, find_structure
from worker.engine.structure.propagation import read_graph
from worker.engine.structure.selection import Choice, Macs
from worker.engine.structure.sizes import Sizes, measured_sizes

# A batch of another size shows what has an axis of samples and what is broadcast along it.
SECOND_BATCH = 2


@dataclass(frozen=True)
class Rest:
    """The model without some blocks, and its units."""

    steps: Sequence[Step]
    model: ModelFile
    structure: Structure
    macs: Macs

    def left(self, choice: Choice) -> int:
        """Multiply-accumulates of a call without these units as well; 0 where they cannot be counted."""
        return self.macs.of(self.structure, choice)


@dataclass(frozen=True)
class Subject:
    """`offered` are those of `blocks` that may go; nodes that are `excluded` by name stay, and units tied to them."""

    model: ModelFile
    sizes: Sizes
    blocks: Blocks
    offered: list[Block]
    excluded: frozenset[str]
    macs: int
    """Multiply-accumulates of a call; 0 where they cannot be counted."""

    @classmethod
    def of(cls, model: ModelFile, context: PassContext, excluded: Collection[str]) -> "Subject":
        """The model with the shapes of all tensors in the timed call, its blocks, and its multiply-accumulates.

        Raises:
            ModelFails: a call fails.

        """
        sizes = measured_sizes(model, context.timed_feed(), context.scratch / "sizes", context.threads)
        measured = [sizes]
        if context.feeds.samples_per_call(SECOND_BATCH) == SECOND_BATCH and context.feeds.sample_count >= SECOND_BATCH:
            feed = context.feeds.call(np.arange(SECOND_BATCH)).feed
            measured.append(measured_sizes(model, feed, context.scratch / "sizes-again", context.threads))
        proto = model.structure()
        name_nodes(proto)
        blocks = Blocks(proto.graph, measured)
        macs = count_macs(proto, {name: list(size) for name, size in sizes.items()}) or 0
        return cls(model, sizes, blocks, blocks.without(excluded), frozenset(excluded), macs)

    @property
    def left_without_blocks(self) -> float:
        """Share of the multiply-accumulates of a call once all blocks that are offered are gone, but for one where
        nothing would be multiplied otherwise.
        """
        blocks = self.offered if self.blocks.leaves_products(self.offered) else self.offered[:-1]
        left = self.blocks.macs(blocks)
        return 1.0 if left is None or not self.macs else left / self.macs

    def without(self, steps: Sequence[Step], folder: Path) -> Rest:
        """What is left once these blocks are gone, in the empty `folder`; the model itself where none are."""
        model = bypass(self.model, [step.block for step in steps], folder) if steps else self.model
        structure = find_structure(read_graph(model), self.sizes)
        return Rest(steps, model, structure.without(self.excluded), Macs(model.structure()))
