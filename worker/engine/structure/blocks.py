"""Residual blocks: what a sum adds to x, y = x + f(x), where x and y are of one shape and nothing else reads f.

Such a block is bypassed by letting those who read y read x: f is gone with all that only it needed. A block of a ResNet
with an identity as its shortcut is one, an inverted residual is, the attention of a transformer's layer, and so is its
feed-forward half.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from worker.engine.graph import STANDARD_DOMAINS, names_read
from worker.engine.inspection.macs import Count, count_nodes, multiplies
from worker.engine.structure.sizes import Sizes

SUMS, OPERANDS = ("Add", "Sum"), 2


@dataclass(frozen=True)
class Block:
    """`name` is that of its sum. All who read the value `result` may read the value `source` in its stead."""

    name: str
    source: str
    result: str


class Blocks:
    """Every block of a graph, in its order, and what goes with each.

    `measured` holds the sizes of values in calls of different batch sizes: what is of one shape is so in all of them.
    Nodes are numbered as the file has them, and all have names.
    """

    def __init__(self, graph: onnx.GraphProto, measured: Sequence[Sizes]) -> None:
        self._nodes = list(graph.node)
        self._reads = [names_read(node) for node in self._nodes]
        self._makers = {name: number for number, node in enumerate(self._nodes) for name in node.output if name}
        self._results = [value.name for value in graph.output]
        self._measured = measured
        self._every = self._alive({})
        self.found = [block for node in self._nodes for block in self._blocks_of(node)]

    def without(self, nodes: Collection[str]) -> list[Block]:
        """Those with which none of these nodes would go, by name."""
        return [block for block in self.found if not self.gone([block]) & set(nodes)]

    def gone(self, bypassed: Collection[Block]) -> set[str]:
        """Names of the nodes that go when all of these are bypassed."""
        return {self._nodes[number].name for number in self._every - self._alive(_instead(bypassed))}

    def names_of_outputs(self) -> dict[str, str]:
        """By name of what a node makes, the node's own."""
        return {name: self._nodes[number].name for name, number in self._makers.items()}

    def count(self, bypassed: Collection[Block] = ()) -> Count:
        """Multiply-accumulates of the call first measured that are left."""
        left = (self._nodes[number] for number in sorted(self._alive(_instead(bypassed))))
        return count_nodes(left, {name: list(size) for name, size in self._measured[0].items()})

    def leaves_products(self, bypassed: Collection[Block]) -> bool:
        """Whether anything would still be multiplied."""
        return any(multiplies(self._nodes[number]) for number in self._alive(_instead(bypassed)))

    def follows(self, first: Block, second: Block) -> bool:
        """Whether `second` takes what `first` makes, or what a single node makes of that, as a normalization does."""
        maker = self._makers.get(second.source)
        return second.source == first.result or (maker is not None and first.result in self._nodes[maker].input[:1])

    def _blocks_of(self, node: onnx.NodeProto) -> list[Block]:
        if not _is(node, *SUMS) or len(node.input) != OPERANDS:
            return []
        pairs = (tuple(node.input), tuple(reversed(node.input)))
        return [self._block(node, source) for source, branch in pairs if self._is_block(node, source, branch)]

    def _is_block(self, node: onnx.NodeProto, source: str, branch: str) -> bool:
        """One shape, and a way from x to f(x) on which something is multiplied, all of which goes."""
        if not all(sizes.get(source) == sizes.get(node.output[0], ()) for sizes in self._measured):
            return False
        way = self._way(source, branch)
        products = {number for number in way if multiplies(self._nodes[number])}
        return bool(products) and not products & self._alive({node.output[0]: source})

    def _block(self, node: onnx.NodeProto, source: str) -> Block:
        """A Relu behind the sum does nothing to what a Relu made."""
        made, maker = node.output[0], self._makers.get(source)
        readers = [number for number, read in enumerate(self._reads) if made in read]
        if made not in self._results and len(readers) == 1 and maker is not None:
            reader = self._nodes[readers[0]]
            if _is(reader, "Relu") and _is(self._nodes[maker], "Relu"):
                made = reader.output[0]
        return Block(node.name, source, made)

    def _way(self, source: str, target: str) -> list[int]:
        """The nodes between two values, rising; none where the second does not come from the first."""
        behind = sorted(self._behind([target], {}, stop=source))
        reached, way = {source}, []
        for number in behind:
            if self._reads[number] & reached:
                way.append(number)
                reached |= set(self._nodes[number].output)
        return way if target in reached else []

    def _alive(self, instead: Mapping[str, str]) -> set[int]:
        """The nodes that results rest on where values stand `instead` of others."""
        return self._behind(self._results, instead)

    def _behind(self, values: Collection[str], instead: Mapping[str, str], stop: str | None = None) -> set[int]:
        found: set[int] = set()
        waiting = list(values)
        while waiting:
            name = waiting.pop()
            while name in instead:
                name = instead[name]
            number = self._makers.get(name)
            if name != stop and number is not None and number not in found:
                found.add(number)
                waiting.extend(self._reads[number])
        return found


def _instead(bypassed: Collection[Block]) -> dict[str, str]:
    return {block.result: block.source for block in bypassed}


def _is(node: onnx.NodeProto, *operators: str) -> bool:
    return node.domain in STANDARD_DOMAINS and node.op_type in operators
