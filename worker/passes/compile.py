"""The graph as ONNX Runtime optimizes it for the machine at hand, so that loading it does none of that again.

Level ALL of https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html: fusions, and
convolutions in the layout of this processor. Beside the `.onnx` the same graph as `.ort`, the runtime's own format and
the only one that its minimal builds read. The bytes of an `.ort` differ from run to run: the runtime writes constants
in the order of their addresses.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import onnx

from app.recipes.graph import Compile
from worker.engine.canonical import canonicalize
from worker.engine.equivalence import difference
from worker.engine.float16.halves import half_elements
from worker.engine.graph import computes_the_same
from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile
from worker.engine.optimized import write_optimized
from worker.engine.pass_contract import ExtraKind, PassContext, PassResult
from worker.engine.preparation import Preparation, operator_counts, save_restored
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.sessions import ALL, NONE, ModelFails, open_session
from worker.engine.versions import versions
from worker.engine.weight_only.stored import unpacks_when_loaded

LAYOUT_DOMAIN = "com.microsoft.nchwc"
COMPILED = 0.5
LOADS = 3


def apply(model: ModelFile, config: Compile, context: PassContext) -> PassResult:
    """Notes say which machine the file is for; `extras` holds the `.ort`."""
    context.phase("compiling")
    feed = next(context.feeds.calls(1)).feed
    preparation = Preparation.start(model, feed, context.scratch, context.threads)
    preparation.normalise()
    before = preparation.model.structure()
    if not preparation.attempt("compiling", lambda file, folder: _compiled(file, folder, context.threads)):
        return PassResult(model, False, [*preparation.notes, "The model could not be compiled; nothing was changed."])
    context.progress(COMPILED)
    compiled, notes = preparation.model.structure(), preparation.notes
    modified = not computes_the_same(model.structure(), compiled)
    counts = {"before": operator_counts(before), "after": operator_counts(compiled)}
    if modified:
        notes += [
            f"{sum(counts['before'].values())} nodes became {sum(counts['after'].values())}.",
            *_limits(before, compiled),
        ]
    else:
        notes.append("ONNX Runtime has nothing to optimize in it ahead of time; the .onnx is unchanged.")
    extras = _as_ort(preparation) if config.ort_format else {}
    made = preparation.model if modified else model
    files = {"original": model.path, "compiled": made.path, **{str(kind): path for kind, path in extras.items()}}
    load_ms = _load_ms(files, context)
    notes.append(f"Loading takes {', '.join(f'{value:.3g} ms ({name})' for name, value in load_ms.items())}.")
    context.progress(1.0)
    manifest = {"target": _target(), "operator_counts": counts, "load_ms": load_ms}
    return PassResult(made, modified, notes, manifest, extras=extras)


def _load_ms(files: Mapping[str, Path], context: PassContext) -> dict[str, float]:
    """The median of a few loads of each, by turns; of one where time is short."""
    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(LOADS):
        for name, path in files.items():
            started = time.perf_counter()
            open_session(path, context.threads)
            taken[name].append(1e3 * (time.perf_counter() - started))
        if context.seconds_left() < sum(each[-1] for each in taken.values()) / 1e3:
            break
    return {name: statistics.median(each) for name, each in taken.items()}


def _compiled(model: ModelFile, folder: Path, threads: int) -> ModelFile:
    made = write_optimized(model, folder / "raw" / "model.onnx", threads, ALL).load()
    canonicalize(made, model.structure())
    return save_restored(made, model, folder / "done")


def _as_ort(preparation: Preparation) -> dict[ExtraKind, Path]:
    """The compiled graph in the runtime's own format, if it answers as the original did."""
    if preparation.model.size_bytes() > MAX_SINGLE_FILE_BYTES:
        preparation.notes.append("There is no .ort: that format holds no model over 2 GB.")
        return {}
    try:
        made = write_optimized(preparation.model, preparation.scratch / "ort" / "model.ort", preparation.threads, NONE)
        changed = difference(preparation.reference, made)
    except ModelFails as error:
        changed = error.detail
    if changed:
        preparation.notes.append(f"There is no .ort ({changed}).")
        return {}
    preparation.notes.append(
        "The .ort holds the same graph and answers as the original; its speed and memory are those of the .onnx."
    )
    return {"ort": made.path}


def _target() -> dict[str, object]:
    """The machine and the runtime that the file is for."""
    return {
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "onnxruntime": versions().get("onnxruntime"),
    }


def _limits(before: onnx.ModelProto, compiled: onnx.ModelProto) -> list[str]:
    target = _target()
    notes = [
        f"Compiled by ONNX Runtime {target['onnxruntime']} for {target['processor']} "
        f"({', '.join(instruction_sets())}): the file is for this machine only."
    ]
    layouts = sum(node.domain == LAYOUT_DOMAIN for node in compiled.graph.node)
    if layouts:
        notes.append(
            f"{layouts} nodes of {LAYOUT_DOMAIN} hold weights in the layout of this processor: on another one, results "
            "may be wrong without an error."
        )
    if unpacks_when_loaded(before, halves=True):
        notes.append(
            "Weights in fewer bits were taken apart into what kernels read, float32 or int8, as at every load: the "
            "file is larger for it."
        )
    elif half_elements(compiled) < half_elements(before):
        notes.append(
            "Weights in half precision, which has no kernels here, became float32, as at every load: the file is "
            "larger for it."
        )
    return notes
