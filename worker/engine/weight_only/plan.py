"""A plan: which weights of a prepared model go into which bits, and the file that holds them so."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from worker.engine.fidelity import Power
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.model_file import ModelFile
from worker.engine.nodes import constant
from worker.engine.weight_only.blocks import Blocks, block_quantize
from worker.engine.weight_only.packed import write_packed
from worker.engine.weight_only.places import Place, Use
from worker.engine.weight_only.stored import FOUR_BITS, Codes, encode, write_blocks, write_codes, write_table

# What a convolution or an embedding keeps in at least, and what is kept of numbers whose meaning is not known.
LEAST_CODE_BITS, CONSTANT_BITS = 8, 16


@dataclass
class Plan:
    """`places` of `prepared` in `bits`, matrices in 4 bits by blocks of `block_size`."""

    prepared: ModelFile
    places: list[Place]
    bits: int
    block_size: int
    _sqnr_db: dict[tuple[str, bool], float] = field(default_factory=dict)
    """Of every weight that was written, by name and whether that was by blocks: it may be written both ways."""
    _blocks: dict[str, Blocks] = field(default_factory=dict)
    _codes: dict[str, Codes] = field(default_factory=dict)

    @property
    def packable(self) -> list[Place]:
        return [place for place in self.places if place.packable]

    def write(self, packed: Collection[str], folder: Path) -> ModelFile:
        """The model with all weights stored; the places named in `packed` as MatMulNBits."""
        model = read_graph(self.prepared)
        for place in self.places:
            values = constant(model.graph.initializers[place.name])
            if values is None:
                raise ValueError(f"{place.name!r} is no constant of the prepared model")
            if place.name in packed:
                write_packed(model.graph, place, self._blocks_of(place, values))
            elif self._by_blocks(place, packed):
                write_blocks(model.graph, place, self._blocks_of(place, values))
            elif place.use is Use.TABLE:
                write_table(model.graph, place, self._codes_of(place, values))
            else:
                write_codes(model.graph, place, self._codes_of(place, values))
        return save_graph(model, folder)

    def form(self, place: Place, packed: Collection[str]) -> str:
        """In words, how a place is kept."""
        if place.name in packed:
            return f"MatMulNBits, {self.bits} bits"
        if self._by_blocks(place, packed):
            return f"{self.bits} bits by blocks"
        by = {Use.TABLE: "by row", Use.CONSTANT: "as a whole"}.get(place.use, "by output channel")
        return f"{self._bits_of(place)} bits {by}"

    def sqnr_db(self, place: Place, packed: Collection[str]) -> float:
        """Signal to noise of what is stored for a weight in the file that was written with `packed`."""
        return self._sqnr_db[place.name, self._by_blocks(place, packed)]

    def in_words(self, packed: Collection[str]) -> list[str]:
        """One sentence a form, with how many weights of which operators it holds."""
        counts: dict[str, Counter[str]] = {}
        for place in self.places:
            counts.setdefault(self.form(place, packed), Counter())[place.operator] += 1
        return [
            f"{form[0].upper()}{form[1:]}: weights of "
            + ", ".join(f"{count} {operator}" for operator, count in sorted(found.items()))
            + "."
            for form, found in sorted(counts.items())
        ]

    def _by_blocks(self, place: Place, packed: Collection[str]) -> bool:
        return place.name in packed or (place.use is Use.PRODUCT and self.bits == FOUR_BITS)

    def _bits_of(self, place: Place) -> int:
        return CONSTANT_BITS if place.use is Use.CONSTANT else max(self.bits, LEAST_CODE_BITS)

    def _codes_of(self, place: Place, values: np.ndarray) -> Codes:
        if place.name not in self._codes:
            codes = self._codes[place.name] = encode(values, place.kept, self._bits_of(place))
            self._sqnr_db[place.name, False] = _sqnr_db(values, codes.dequantize())
        return self._codes[place.name]

    def _blocks_of(self, place: Place, values: np.ndarray) -> Blocks:
        if place.name not in self._blocks:
            matrix = values if place.kept == (1,) else values.T
            blocks = self._blocks[place.name] = block_quantize(matrix, self.bits, self.block_size)
            self._sqnr_db[place.name, True] = _sqnr_db(matrix, blocks.dequantize())
        return self._blocks[place.name]


def _sqnr_db(exact: np.ndarray, stored: np.ndarray) -> float:
    power = Power()
    power.add(exact, stored)
    return power.db
