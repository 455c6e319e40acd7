"""The weights of a model stored in the bits that are asked for, by the kernels that are fastest here.

In float32 again once ONNX Runtime has loaded the file, so that its float kernels run; a table's rows when they are
read; and where it measures faster a product runs as MatMulNBits, which reads the bits as they lie.
"""

from collections import Counter
from typing import Any

from app.jobs.report import Layer
from app.recipes.quantization import QuantizeWeights
from worker.engine.graph import opset_of
from worker.engine.graph_file import read_graph
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import operator_counts, prepared, save_restored, unknown_nodes
from worker.engine.timing import profiled
from worker.engine.weight_only.choosing import Kernels, choose_kernels
from worker.engine.weight_only.places import Found, Place, Use, find_places
from worker.engine.weight_only.plan import LEAST_CODE_BITS, Plan
from worker.engine.weight_only.stored import FOUR_BITS, LEAST_SHIFT_OPSET, constant_nodes

PREPARED, WRITTEN = 0.2, 0.9
VERIFYING_SECONDS = 0.5
BITS_WITH_KERNELS = (4, 8)


def store_weights(model: ModelFile, config: QuantizeWeights, context: PassContext) -> PassResult:
    """Notes say how many weights of which operators are kept in which form, and what stays in float32 and why."""
    context.phase("preparing")
    preparation = prepared(model, context)
    structure, notes = preparation.model.structure(), list(preparation.notes)
    found = find_places(read_graph(preparation.model), config.minimum_elements, config.exclude)
    notes.extend(unknown_nodes(config.exclude, structure))
    notes.extend(_left_in_words(found))
    if not found.places:
        what = "other weight" if found.reasons else "weight"
        left = f"No {what} of {config.minimum_elements} elements or more is left in float32; nothing was changed."
        return PassResult(model, False, [*notes, left])
    context.progress(PREPARED)
    context.check_time("quantizing")
    context.phase("quantizing")
    bits: int = config.bits
    if bits == FOUR_BITS and opset_of(structure) < LEAST_SHIFT_OPSET:
        bits = LEAST_CODE_BITS
        notes.append(
            f"4 bits are unpacked by shifts, which opset {opset_of(structure)} lacks: weights get {bits} bits."
        )
    plan = Plan(preparation.model, found.places, bits, config.block_size)
    kernels = _kernels(plan, config, context)
    made = kernels.model.load()
    result = save_restored(made, model, context.scratch / "result")
    context.progress(WRITTEN)
    notes += [*plan.in_words(kernels.packed), *kernels.notes, *_verified(result, plan, kernels, context)]
    manifest = {
        "weights": {place.name: plan.form(place, kernels.packed) for place in found.places},
        "in_float32": dict(sorted(found.reasons.items())),
        "kernels": kernels.manifest(),
        "replay": _pinned(plan, kernels, config),
        "operator_counts": {"before": operator_counts(structure), "after": operator_counts(made)},
    }
    context.progress(1.0)
    return PassResult(result, True, notes, manifest, [_layer(place, plan, kernels) for place in found.places])


def _layer(place: Place, plan: Plan, kernels: Kernels) -> Layer:
    sqnr_db = plan.sqnr_db(place, kernels.packed)
    return Layer(name=place.node, operator=place.operator, weight=place.name, weight_sqnr_db=sqnr_db)


def _kernels(plan: Plan, config: QuantizeWeights, context: PassContext) -> Kernels:
    if config.kernels == "auto" and config.bits in BITS_WITH_KERNELS:
        return choose_kernels(plan, context)
    packed: frozenset[str] = frozenset()
    if config.kernels == "matmul_nbits":
        packed = frozenset(place.name for place in plan.packable if place.node not in config.keep_stored)
    return Kernels(plan.write(packed, context.scratch / "written"), packed)


def _pinned(plan: Plan, kernels: Kernels, config: QuantizeWeights) -> dict[str, Any]:
    """The arguments that repeat this run's choices without measuring anything: the same bytes on any machine."""
    pinned: dict[str, Any] = {"kernels": "stored"}
    if kernels.packed:
        stored = [place.node for place in plan.packable if place.name not in kernels.packed]
        pinned = {"kernels": "matmul_nbits", "keep_stored": stored}
    return config.model_dump(mode="json", by_alias=True) | pinned


def _left_in_words(found: Found) -> list[str]:
    counts = Counter(found.reasons.values())
    return [f"In float32: {count} tensors ({reason})." for reason, count in sorted(counts.items())]


def _verified(result: ModelFile, plan: Plan, kernels: Kernels, context: PassContext) -> list[str]:
    """What of the unpacking runs at every call, by the profile of the finished file."""
    times = profiled(result, context, VERIFYING_SECONDS)
    once = constant_nodes(result.structure())
    repeated = sorted({time.name for time in times if time.name in once})
    if repeated:
        return [f"{len(repeated)} conversions of weights run at every call here: {', '.join(repeated[:5])}."]
    tables = sum(place.use is Use.TABLE for place in plan.places)
    stored = len(plan.places) - tables - len(kernels.packed)
    notes = []
    if stored:
        notes.append(f"{stored} weights are float32 again once the file is loaded: the kernels are those of float.")
    if tables:
        notes.append(f"A call converts those rows of {tables} tables that it reads, and no others.")
    return notes
