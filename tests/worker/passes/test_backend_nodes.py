"""ONNX's own backend node tests through the passes: whatever the operators, a result that runs and answers the same.

Here: one model an operator in every form, and all of those with weights. `python -m benchmarks.backend_nodes` takes
every one of them.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.recipes.catalogue import CATALOGUE
from tests.worker.backend_nodes import WITH_CONSTANTS, NodeModel, node_models, with_constants
from worker.engine import profiling
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import ModelFails, open_session, run_session
from worker.passes.registry import load_pass

# Every int8 kernel there is; which of them pays on this machine is not the question.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "optimize_graph": {},
    "quantize_static": {"placement": "kernels"},
    "quantize_dynamic": {"placement": "kernels"},
    "quantize_weights": {},
    "convert_float16": {},
    "prune_unstructured": {"threshold": 0.005},
    "factorize_low_rank": {"objective": "size", "fidelity_floor_db": 30.0},
}
# Without weights there is little to quantize, and preparing is what `optimize_graph` does as well.
HERE = [
    pytest.param("optimize_graph", "", id="optimize_graph"),
    pytest.param("quantize_static", WITH_CONSTANTS, id="quantize_static-with-constants"),
    pytest.param("quantize_static", "", id="quantize_static", marks=pytest.mark.long),
]
FLOORS_DB = {
    # float32 has 24 bits of significand, 144 dB a rounding; sums taken in another order may cost 20 of them.
    "optimize_graph": 120.0,
    # Rounding to 8 bits over a range of its own keeps about 40 dB; a dozen roundings in what one
    # operator expands to, and tensors of a few elements may cost ten of them.
    "quantize_static": 30.0,
    "quantize_dynamic": 30.0,
    "quantize_weights": 30.0,
    # 11 bits of significand: 66 dB a rounding.
    "convert_float16": 50.0,
    # Weights of some tenths that lose all below a two-hundredth.
    "prune_unstructured": 30.0,
    # It is asked for as much, and judges by the one sample that there is.
    "factorize_low_rank": 30.0,
}
# A tensor of zeros has no signal: this much noise an element is none.
SILENCE = 1e-12
# Why a model may fail, by pass and name. One that passes must not stand here.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "optimize_graph": {},
    "quantize_static": {},
    "quantize_dynamic": {},
    "quantize_weights": {},
    "convert_float16": {},
    "prune_unstructured": {},
    "factorize_low_rank": {},
}
# Operators with weights: all their models with constants are taken.
WEIGHTED = {f"{name}{WITH_CONSTANTS}" for name in ("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul")}
# What is taken of the pinned onnx, and runs on the pinned ONNX Runtime. Fewer, and less is proved than it says.
LEAST_MODELS, LEAST_OPERATORS = {"": 338, WITH_CONSTANTS: 142}, {"": 154, WITH_CONSTANTS: 87}


@dataclass
class Sweep:
    """What became of the models: those that passed, by operator, and why others failed, by name."""

    name: str
    passed: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.passed.values())) + len(self.failed)

    @property
    def unexpected(self) -> dict[str, str]:
        """What went otherwise than the exceptions say, by name."""
        named = EXCEPTIONS[self.name]
        passed = {name for names in self.passed.values() for name in names}
        stale = dict.fromkeys(passed & named.keys(), "passes, and is no exception any more")
        return {name: fault for name, fault in self.failed.items() if name not in named} | stale

    @property
    def operators(self) -> set[str]:
        """Those with a model that passed, in whatever form."""
        return {operator.partition(" with")[0].partition(",")[0] for operator in self.passed}

    def in_words(self) -> str:
        """The share, and one line an exception."""
        passed = self.count - len(self.failed)
        share = f"{100 * passed / max(1, self.count):.2f} %"
        first = f"{self.name}: {passed} of {self.count} models pass ({share}), {len(self.operators)} operators"
        excepted = [f"  {name}: {reason}" for name, reason in EXCEPTIONS[self.name].items() if name in self.failed]
        return "\n".join([first, *excepted])


@dataclass(frozen=True)
class Runnable:
    """A model as a file, and what ONNX Runtime answers to its feed."""

    source: NodeModel
    file: ModelFile
    outputs: list[Any]

    @classmethod
    def of(cls, source: NodeModel, folder: Path) -> "Runnable | None":
        """None where ONNX Runtime has no kernel for it."""
        folder.mkdir(parents=True)
        file = ModelFile(folder / "model.onnx")
        file.path.write_bytes(source.model.SerializeToString())
        try:
            return cls(source, file, run_session(open_session(file.path, 1), source.feed))
        except ModelFails:
            return None


def runnables(models: Iterable[NodeModel], folder: Path) -> Iterator[Runnable]:
    """Those that ONNX Runtime runs as they are."""
    for number, one in enumerate(models):
        made = Runnable.of(one, folder / str(number))
        if made is not None:
            yield made


def one_an_operator(models: Iterable[NodeModel], folder: Path) -> Iterator[Runnable]:
    """The first of each operator in each form that runs, and every one with weights that does."""
    seen: set[str] = set()
    wanted = (one for one in models if one.operator not in seen or one.operator in WEIGHTED)
    for made in runnables(wanted, folder):
        seen.add(made.source.operator)
        yield made


def sweep(name: str, models: Iterable[Runnable]) -> Sweep:
    """Every model through the pass of this name."""
    found = Sweep(name)
    for one in models:
        try:
            fault = _fault(name, one)
        except Exception as error:  # whatever a pass raises is what is looked for
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            found.passed.setdefault(one.source.operator, []).append(one.source.name)
        else:
            found.failed[one.source.name] = fault
    return found


def _fault(name: str, one: Runnable) -> str | None:
    """What is wrong with what the pass makes of a model, in words; its own feed is all the data there is."""
    arrays = {key: array[None] for key, array in one.source.feed.items()}
    feeds = match_arrays(inputs_of(one.file.structure()), arrays, "the test's input")
    scratch = one.file.path.parent / name
    scratch.mkdir()
    config = CATALOGUE[name].config.model_validate({"pass": name, **ARGUMENTS[name]})
    result = load_pass(name)(one.file, config, PassContext(scratch, feeds, seed=0, threads=1))
    onnx.checker.check_model(str(result.model.path))
    names = [output.name for output in one.source.model.graph.output]
    outputs = run_session(open_session(result.model.path, 1), one.source.feed, names)
    return _first(_output_fault(name, *pair) for pair in zip(one.outputs, outputs, strict=True))


def _output_fault(name: str, before: Any, after: Any) -> str | None:
    """An array against an array, a sequence item by item. Fewer bits may turn over an integer or a truth value."""
    if isinstance(before, list):
        same_length = isinstance(after, list) and len(before) == len(after)
        pairs = zip(before, after, strict=True) if same_length else ()
        return _first(_output_fault(name, *pair) for pair in pairs) if same_length else "another sequence"
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"{before.dtype} {before.shape} became {after.dtype} {after.shape}"
    if before.dtype.kind == "f":
        return _float_fault(before.astype(np.float64), after.astype(np.float64), FLOORS_DB[name])
    return None if name != "optimize_graph" or np.array_equal(before, after) else "another value"


def _float_fault(before: np.ndarray, after: np.ndarray, floor_db: float) -> str | None:
    finite = np.isfinite(before)
    if not np.array_equal(before[~finite], after[~finite], equal_nan=True) or not np.isfinite(after[finite]).all():
        return "NaN or infinity elsewhere"
    noise, signal = np.square(before[finite] - after[finite]).sum(), np.square(before[finite]).sum()
    if noise <= signal * 10 ** (-floor_db / 10) + SILENCE * before.size:
        return None
    return f"{10 * np.log10(signal / noise):.1f} dB" if signal else "noise where nothing was"


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Runnable]:
    found = node_models()
    return list(one_an_operator([*found, *with_constants(found)], tmp_path_factory.mktemp("models")))


@pytest.mark.parametrize(("name", "form"), HERE)
def test_a_model_of_every_operator_passes(
    name: str,
    form: str,
    models: list[Runnable],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Times are not what is looked at.
    monkeypatch.setattr(profiling, "MOST_CALLS", 2)
    found = sweep(name, [one for one in models if one.source.name.endswith(form)])
    with capsys.disabled():
        sys.stdout.write(f"\n{found.in_words()}\n")
    assert found.unexpected == {}
    assert found.count >= LEAST_MODELS[form]
    assert len(found.operators) >= LEAST_OPERATORS[form]
