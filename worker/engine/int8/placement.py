"""Where 8 bits begin and end: which units run in int8, and which tensors are therefore quantized."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import onnx_ir as ir

from worker.engine.int8.units import Role, Unit


@dataclass(frozen=True)
class Placement:
    """`units` are all units of a graph, in its order; those named in `quantized` run in int8.

    `reasons` says of units left in float why, by name.
    """

    units: list[Unit]
    quantized: frozenset[str]
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, units: list[Unit], quantized: Iterable[str], reasons: dict[str, str] | None = None) -> Self:
        """A placement in which no carrier runs in int8 for nothing: what it reads or what reads it must be int8."""
        chosen = set(quantized)
        while idle := _idle_carriers(units, chosen):
            chosen -= idle
        return cls(units, frozenset(chosen), reasons or {})

    def without(self, names: Iterable[str], reason: str) -> Self:
        """The same with these units in float."""
        dropped = set(names)
        return self.of(self.units, self.quantized - dropped, {**self.reasons, **dict.fromkeys(sorted(dropped), reason)})

    @cached_property
    def in_int8(self) -> list[Unit]:
        return [unit for unit in self.units if unit.name in self.quantized]

    @cached_property
    def _unit_of(self) -> dict[ir.Node, Unit]:
        return {node: unit for unit in self.in_int8 for node in unit.nodes}

    def emits_float(self, unit: Unit) -> bool:
        """Whether an int8 unit's kernel hands out float32: products do, unless somebody reads them in 8 bits.

        Then everybody does: the runtime fuses a product that is quantized only where nobody sees it unquantized. One
        with a Relu or Clip behind it, read by a node in float, it fuses only where that is quantized.
        """
        if unit.role is not Role.PRODUCT and not (unit.role is Role.WEIGHTED and unit.node.op_type != "Conv"):
            return False
        if unit.activation is not None and unit.output.uses():
            return False
        return not any(use.node in self._unit_of for use in unit.output.uses())

    @cached_property
    def made_in_int8(self) -> set[ir.Value]:
        """Outputs of units whose kernels write 8 bits."""
        return {value for unit in self.in_int8 if not self.emits_float(unit) for value in unit.outputs}

    @cached_property
    def tensors(self) -> list[ir.Value]:
        """Every activation that gets a scale, in the order of the graph."""
        found: dict[ir.Value, None] = {}
        for unit in self.in_int8:
            found.update(dict.fromkeys(unit.sources))
            if not self.emits_float(unit):
                found.update(dict.fromkeys(unit.outputs))
        return list(found)

    @cached_property
    def roots(self) -> dict[ir.Value, ir.Value]:
        """The tensor whose scale each of `tensors` uses: carriers hand theirs on."""
        roots: dict[ir.Value, ir.Value] = {}
        for unit in self.in_int8:
            if unit.role is Role.CARRIER:
                source = unit.sources[0]
                roots.update(dict.fromkeys(unit.outputs, roots.get(source, source)))
        return {value: roots.get(value, value) for value in self.tensors}

    def reads_in_int8(self, node: ir.Node) -> bool:
        return node in self._unit_of


def _idle_carriers(units: list[Unit], chosen: set[str]) -> set[str]:
    """Carriers in int8 between float neighbours."""
    computing = {node for unit in units if unit.name in chosen for node in unit.nodes}
    idle = set()
    for unit in units:
        if unit.name in chosen and unit.role is Role.CARRIER:
            fed = any(value.producer() in computing for value in unit.sources)
            if not fed:
                idle.add(unit.name)
    return idle
