"""Making a graph ready for what follows: a recent opset, known shapes, constants and BatchNorm folded.

Every step but the first is tried on its own and kept only if the result loads and computes the same on one call, and on
that call with other places masked; a step that fails is left out and said in the notes. Files are saved at ONNX
Runtime's BASIC level: higher levels are the machine's, not the model's.
"""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import shape_inference, version_converter

from worker.engine.canonical import rename_constants
from worker.engine.equivalence import NOT_COMPARABLE, Reference, difference
from worker.engine.faults import is_disk_full, is_out_of_memory
from worker.engine.float16.halves import computes_in_half, half_elements
from worker.engine.graph import (
    STANDARD_DOMAINS,
    constants_to_initializers,
    inputs_with_default,
    make_dense,
    name_nodes,
    nodes_of,
    opset_of,
    restore_face,
)
from worker.engine.graph_file import read_graph, whole_proto
from worker.engine.inspection import walk
from worker.engine.inspection.shapes import inline_functions
from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile, save_model, tensor_bytes
from worker.engine.optimized import write_optimized
from worker.engine.pass_contract import PassContext
from worker.engine.profiling import origin_of
from worker.engine.quiet import quiet
from worker.engine.reasons import counted
from worker.engine.rewrites import REWRITES, residual_sum
from worker.engine.rewrites.constant_nodes import lift_constants
from worker.engine.sessions import BASIC, Device, Feed
from worker.engine.symbolic_shapes import infer_symbolic
from worker.engine.unfolding import Folded, compute_again, costly, in_words
from worker.engine.weight_only.stored import unpacks_when_loaded

# What the rewrites and the runtime's fusions are written for.
LEAST_OPSET, LATEST_OPSET = 17, 21
NAMED_INPUTS = 5


@dataclass
class Preparation:
    """Steps applied to a model one after another, each into a folder of its own below `scratch`."""

    model: ModelFile
    original: onnx.ModelProto
    reference: Reference
    scratch: Path
    threads: int
    notes: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)
    """Constants that folding made and that cost bytes."""

    @classmethod
    def start(cls, model: ModelFile, feed: Feed, scratch: Path, threads: int) -> "Preparation":
        return cls(model, model.structure(), Reference.of(model, feed, threads), scratch, threads)

    def normalise(self) -> None:
        """The first step, exact by construction: it needs no comparison, which chance in a model would prevent."""
        self.model = normalise(self.model, self._folder(), inline=True)
        self.applied.append("giving every node a name")
        sparse = sum(1 for _ in walk.sparse_tensors(self.original))
        if sparse:
            self.notes.append(f"Made {sparse} sparse constants dense, as ONNX Runtime does at every load.")
        inlined = len(self.original.functions) - len(self.model.structure().functions)
        if inlined:
            self.notes.append(f"Inlined {inlined} functions of the model, as ONNX Runtime does at every load.")

    def attempt(
        self, name: str, step: Callable[[ModelFile, Path], ModelFile | None], *, annotates: bool = False
    ) -> bool:
        """Run one step, which `name` says in words; keep its result if it answers as the model did at the start.

        A step that finds nothing to do returns None. One that only `annotates`, and leaves what is computed as it is,
        is kept too where chance in the model lets nothing be compared.

        Raises:
            OutOfMemory, MemoryError, OSError: there is not enough memory, or no room on the disk: for the model as it
                was either, it may be.

        """
        folder = self._folder()
        try:
            with quiet(self.scratch):
                made = step(self.model, folder)
        except Exception as error:  # tools raise anything; the model as it was is still good
            if is_out_of_memory(error) or is_disk_full(error):
                raise
            self.notes.append(f"Left out: {name} ({self._without_paths(_first_line(error))}).")
            return False
        if made is None:
            return False
        changed = difference(self.reference, made)
        if changed and not (annotates and changed == NOT_COMPARABLE):
            self.notes.append(f"Left out: {name} ({self._without_paths(changed)}).")
            return False
        self.model = made
        self.applied.append(name)
        return True

    def branch(self, scratch: Path) -> "Preparation":
        """The same so far: what goes on from it, in `scratch`, leaves this one as it is."""
        return replace(self, scratch=scratch, notes=list(self.notes), applied=list(self.applied))

    def _folder(self) -> Path:
        """An empty one, for the next step."""
        folder = self.scratch / f"step-{len(list(self.scratch.glob('step-*')))}"
        folder.mkdir(parents=True)
        return folder

    def _without_paths(self, text: str) -> str:
        """Where a worker keeps its files tells a user nothing."""
        return text.replace(f"{self.scratch}/", "")


@dataclass
class Preparations:
    """Those of the model that a job is about: made once, and every pass of every candidate begins with one of them."""

    model: ModelFile
    folder: Path
    _made: dict[tuple[int | None, bool, bool], Preparation] = field(default_factory=dict)

    def of(self, context: PassContext, opset: int | None, sums_apart: bool, keep_halves: bool) -> Preparation:
        """Of what it took to make it, the last file alone is kept."""
        keep_halves = keep_halves and half_elements(self.model.structure()) > 0
        key = opset, sums_apart, keep_halves
        if key not in self._made:
            folder = self.folder / f"{opset}-{sums_apart}-{keep_halves}"
            if sums_apart:
                made = self.of(context, opset, False, keep_halves).branch(folder)
                keep_sums_apart(made, context.device)
            else:
                feed = next(context.feeds.calls(1)).feed
                made = prepare(self.model, feed, folder, context.threads, opset, keep_halves=keep_halves)
            for step in folder.glob("step-*"):
                if not made.model.path.is_relative_to(step):
                    shutil.rmtree(step)
            self._made[key] = made
        return self._made[key]


def prepared(
    model: ModelFile,
    context: PassContext,
    opset: int | None = None,
    *,
    sums_apart: bool = True,
    keep_halves: bool = False,
) -> Preparation:
    """`prepare` for a pass, and last of all `keep_sums_apart`, unless the pass comes to that itself."""
    shared = context.preparations
    if shared is not None and shared.model == model:
        return shared.of(context, opset, sums_apart, keep_halves).branch(context.scratch)
    feed = next(context.feeds.calls(1)).feed
    made = prepare(model, feed, context.scratch, context.threads, opset, keep_halves=keep_halves)
    if sums_apart:
        keep_sums_apart(made, context.device)
    return made


def prepare(
    model: ModelFile,
    feed: Feed,
    scratch: Path,
    threads: int,
    opset: int | None = None,
    *,
    keep_halves: bool = False,
) -> Preparation:
    """Name nodes, convert opsets to between 17 and 21 (or to `opset`), fold at BASIC level, infer shapes.

    With `keep_halves` weights that are stored in half precision stay so, for passes that leave weights as they are.
    """
    preparation = Preparation.start(model, feed, scratch, threads)
    preparation.normalise()
    # Functions of another opset than the model's the runtime alone inlines, when it folds.
    folds_first = bool(preparation.model.structure().functions)
    if folds_first:
        _fold(preparation, threads, keep_halves)
    version = opset_of(preparation.original)
    wanted = opset or min(max(version, LEAST_OPSET), LATEST_OPSET)
    if wanted != version:
        preparation.attempt(f"converting opset {version} to {wanted}", lambda file, to: _convert(file, to, wanted))
        # Nodes of before would be of another opset.
        preparation.folded = []
    if not folds_first:
        _fold(preparation, threads, keep_halves)
    if not preparation.attempt("symbolic shape inference", _infer_symbolic, annotates=True):
        preparation.attempt("shape inference", _infer, annotates=True)
    untouched: dict[ModelFile, ir.Model] = {}
    # Folding leaves none: there are some only where it was left out.
    lifting = partial(_rewritten, rewrite=lift_constants, untouched=untouched)
    preparation.attempt("turning Constant nodes into initializers", lifting, annotates=True)
    for name, rewrite in REWRITES.items():
        preparation.attempt(name, partial(_rewritten, rewrite=rewrite, untouched=untouched))
    return preparation


def keep_sums_apart(preparation: Preparation, device: Device) -> None:
    """The last step of a pass's own: what it looks for in a graph it finds as Add.

    On a GPU the fused kernel is the faster one.
    """
    if device == "cpu":
        preparation.attempt(
            "keeping sums apart from LayerNormalization",
            partial(_rewritten, rewrite=residual_sum.keep_sums_apart, untouched={}),
        )


def leave_to_loading(preparation: Preparation) -> None:
    """The last step of a pass that needs no constants: what folding made and costs bytes is computed as it was."""

    def step(model: ModelFile, folder: Path) -> ModelFile | None:
        loaded = model.load()
        return save_restored(loaded, model, folder / "done") if compute_again(loaded, preparation.folded) else None

    if preparation.folded and preparation.attempt("leaving large constants to be computed at load", step):
        preparation.notes.append("What folding made so is computed when the file is loaded instead, as before.")


def _fold(preparation: Preparation, threads: int, keep_halves: bool) -> None:
    structure = preparation.model.structure()
    against = None
    if computes_in_half(structure):
        against = "on a CPU ONNX Runtime would turn all that computes in half precision into float32"
    elif unpacks_when_loaded(structure, keep_halves):
        against = "that would take weights in fewer bits apart into what kernels read, float32 or int8"
    if against is not None:
        preparation.notes.append(f"Constants were not folded: {against}.")
        return
    before, counts = preparation.model, operator_counts(structure)
    if preparation.attempt("folding constants and BatchNorm", lambda file, to: _folded(file, to, threads)):
        preparation.notes.extend(changes(counts, operator_counts(preparation.model.structure())))
        preparation.folded = costly(before, preparation.model)
        preparation.notes.extend(in_words(preparation.folded))


def normalise(model: ModelFile, folder: Path, *, inline: bool = False) -> ModelFile:
    """Every node with a name of its own, no constant that is an input as well, none that is sparse, and nothing said of
    what lies between nodes.

    With `inline` functions of the model are inlined, which the converter of onnx would lose.
    """
    loaded = model.load()
    if inline and loaded.functions and tensor_bytes(loaded.graph) <= MAX_SINGLE_FILE_BYTES:
        loaded = inline_functions(loaded) or loaded
    make_dense(loaded, model.path.parent)
    constants_to_initializers(loaded)
    name_nodes(loaded)
    for graph in walk.all_graphs(loaded):
        # Its shapes may be of the one call that an exporter traced, while the inputs were made open since.
        del graph.value_info[:]
    return save_model(loaded, folder / "done")


def defaults_in_words(before: ModelFile, after: ModelFile) -> list[str]:
    """Inputs with a default value that `after` has no longer, as `normalise` makes them constants: a list of no or one
    sentence.
    """
    names = inputs_with_default(before.structure())
    if names:
        left = {value.name for value in after.structure().graph.input}
        names = [name for name in names if name not in left]
    if not names:
        return []
    some = ", ".join(names[:NAMED_INPUTS]) + (", ..." if len(names) > NAMED_INPUTS else "")
    return [
        f"Inputs with a default value, {len(names)} of them ({some}), are no inputs of what this pass made: a call can "
        "give them no longer."
    ]


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in nodes_of(model.graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _folded(model: ModelFile, folder: Path, threads: int) -> ModelFile:
    """ONNX Runtime's own rewrites at BASIC level, which use standard operators only."""
    made = write_optimized(model, folder / "raw" / "model.onnx", threads, BASIC).load()
    source = model.structure()
    given = {node.name for node in nodes_of(source.graph)}
    for node in nodes_of(made.graph):
        # What is made of a user's nodes goes by the name that the user knows.
        node.name = node.name if node.name in given else origin_of(node.name)
    rename_constants(made, source)
    return save_restored(made, model, folder / "done")


def _rewritten(
    model: ModelFile, folder: Path, rewrite: Callable[[ir.Model], int], untouched: dict[ModelFile, ir.Model]
) -> ModelFile | None:
    """A graph in which one rewrite found nothing is `untouched`, and need not be read again for the next."""
    graph = untouched.pop(model, None) or read_graph(model)
    if rewrite(graph):
        return save_restored(whole_proto(graph), model, folder / "done")
    untouched[model] = graph
    return None


def _convert(model: ModelFile, folder: Path, opset: int) -> ModelFile | None:
    loaded = model.load()
    if all(entry.domain not in STANDARD_DOMAINS for entry in loaded.opset_import):
        return None
    if tensor_bytes(loaded.graph) > MAX_SINGLE_FILE_BYTES:
        raise ValueError("the converter of onnx takes no model over 2 GB")
    return save_restored(version_converter.convert_version(loaded, opset), model, folder / "done")


def _infer_symbolic(model: ModelFile, folder: Path) -> ModelFile:
    return save_restored(infer_symbolic(model.load()), model, folder / "done")


def _infer(model: ModelFile, folder: Path) -> ModelFile:
    loaded = model.load()
    if tensor_bytes(loaded.graph) > MAX_SINGLE_FILE_BYTES:
        raise ValueError("only symbolic inference takes a model over 2 GB")
    return save_restored(shape_inference.infer_shapes(loaded), model, folder / "done")


def save_restored(made: onnx.ModelProto, source: ModelFile, folder: Path, keep_io: bool = True) -> ModelFile:
    """What was made of `source`, in `folder`: every node named, all beyond the nodes as it was there."""
    restore_face(made, source.structure(), keep_io)
    name_nodes(made)
    return save_model(made, folder)


def unknown_nodes(names: Collection[str], prepared: onnx.ModelProto) -> list[str]:
    """A note on those of a recipe's `exclude` that the prepared graph does not have; none where it has all."""
    unknown = sorted(set(names) - {node.name for node in prepared.graph.node})
    if not unknown:
        return []
    return [f"`exclude` names nodes that the prepared graph does not have: {', '.join(unknown[:10])}."]


def changes(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What happened to the operators, in words: a list of no or one sentence."""
    gone = counted({name: count - after.get(name, 0) for name, count in before.items()})
    come = counted({name: count - before.get(name, 0) for name, count in after.items()})
    if gone and come:
        return [f"Turned {gone} into {come}."]
    return [f"Folded away {gone}."] if gone else []


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]
