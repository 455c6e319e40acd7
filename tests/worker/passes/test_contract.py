"""What every pass keeps: the input untouched, the model's face, its function within bounds, the same bytes again."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult, TrainingData
from worker.engine.random_input import integer_bounds, random_feeds, working_shapes
from worker.passes.registry import load_pass

CALLS = 8
# Enough to learn a little from, and to see it on the tenth that is held out.
TRAINING_CALLS = 40
# Rounding a normal signal to 8 bits over its own range keeps about 40 dB; three layers of weights and activations, on
# ranges from a few samples, and outputs of small size beside their accumulated noise may cost half of that.
INT8_FLOOR_DB = 20.0
# float16 has 11 bits of significand, 66 dB a rounding; a hundred roundings one on another leave 46.
FLOAT16_FLOOR_DB = 45.0
# A rewrite in float32 only reorders sums.
EXACT_FLOOR_DB = 80.0
# Normal weights on 8 bits by channel keep 40 dB and more; activations are exact, and a few layers add up their noise.
WEIGHT_FLOOR_DB = 35.0
# Of normal weights those under a tenth of their spread, which is 0.2 here and more, hold 0.03 % of the power, 36 dB;
# tensors this small are not that normal, and four of them add up what they lack.
PRUNED_FLOOR_DB = 20.0
# What is learned from differs by weights that are off by a twentieth, 26 dB; layers add that up, and half of the way to
# it is gone at most.
TRAINED_FLOOR_DB = 20.0
LESSON = 0.05
# What the pass is asked for, and promises on the calls that it is judged by: with so few, these. Weights of normal
# numbers have no low rank, and only a low floor lets it do something.
FACTORED_FLOOR_DB = 3.0
# A quarter of units that are drawn at random, and all alike, with what the others make up for: half the power is left.
CUT_FLOOR_DB = 3.0
FLOORS = {
    "optimize_graph": EXACT_FLOOR_DB,
    "prune_unstructured": PRUNED_FLOOR_DB,
    "prune_structured": CUT_FLOOR_DB,
    "factorize_low_rank": FACTORED_FLOOR_DB,
    "distill": TRAINED_FLOOR_DB,
    "fine_tune": TRAINED_FLOOR_DB,
    "quantize_static": INT8_FLOOR_DB,
    "quantize_aware_training": INT8_FLOOR_DB,
    "quantize_dynamic": INT8_FLOOR_DB,
    "quantize_weights": WEIGHT_FLOOR_DB,
    "convert_float16": FLOAT16_FLOOR_DB,
    "compile": EXACT_FLOOR_DB,
}
# By default these networks are too small for it to be worth while; and how much is pruned has no default.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "quantize_weights": {"minimum_elements": 1},
    "prune_unstructured": {"threshold": 0.02},
    "prune_structured": {"ratio": 0.25},
    "factorize_low_rank": {"objective": "size", "fidelity_floor_db": FACTORED_FLOOR_DB},
    "distill": {"epochs": 2, "batch_size": 8},
    "fine_tune": {"epochs": 2, "batch_size": 8},
    "quantize_aware_training": {"epochs": 2, "batch_size": 8, "placement": "kernels"},
}
TRAINING = frozenset({"distill", "fine_tune"})
# Of many kinds of operators; in the order of what follows.
VARIED = ("convnet", "attention")
# It trains what runs in int8, and leaves alone a model of which nothing does.
TAUGHT = TRAINING | {"quantize_aware_training"}
# A second of each; what others have of their own, the passes that do not train meet as well.
ALWAYS_TAUGHT = ("convnet", "attention", "lstm")


@dataclass(frozen=True)
class Network:
    """One kind of model; `idle` passes must say that they changed nothing, others may refuse it by name."""

    name: str
    model: onnx.ModelProto
    idle: frozenset[str] = field(default_factory=frozenset)
    refused: frozenset[str] = field(default_factory=frozenset)


NETWORKS = [
    Network("convnet", networks.convnet()),
    Network("perceptron", networks.perceptron()),
    Network("attention", networks.attention_block()),
    Network(
        "lstm",
        networks.recurrent(),
        frozenset(
            {
                "optimize_graph",
                "prune_structured",
                "factorize_low_rank",
                "quantize_static",
                "quantize_aware_training",
                "compile",
            }
        ),
    ),
    Network(
        "gru",
        networks.recurrent(kind="GRU"),
        frozenset(
            {
                "optimize_graph",
                "prune_structured",
                "factorize_low_rank",
                "quantize_static",
                "quantize_aware_training",
                "quantize_dynamic",
                "compile",
            }
        ),
    ),
    # Every unit of it is a result.
    Network("two-inputs", networks.two_inputs(), frozenset({"prune_structured"})),
    Network("initializers-as-inputs", networks.with_initializers_as_inputs(networks.convnet(opset=9))),
    Network(
        "branches",
        networks.with_branches(),
        frozenset(
            {
                "convert_float16",
                "prune_unstructured",
                "prune_structured",
                "factorize_low_rank",
                "quantize_static",
                "quantize_aware_training",
                "quantize_dynamic",
                "quantize_weights",
            }
        ),
        refused=TRAINING,
    ),
    # Weights of ones, none of them small, inside a function.
    Network(
        "function",
        networks.with_function(),
        frozenset({"prune_unstructured", "prune_structured", "factorize_low_rank"}),
    ),
    Network("quantized", networks.quantized_product(), frozenset(CATALOGUE), refused=TRAINING),
]


def _feeds(model: ModelFile, calls: int = CALLS) -> Feeds:
    structure = model.structure()
    inputs = inputs_of(structure)
    shapes = working_shapes(model, inputs, {}, batch=1, threads=1)
    return random_feeds(inputs, integer_bounds(structure, inputs), shapes, calls, seed=0)


def _lesson(model: ModelFile, folder: Path) -> tuple[ModelFile, TrainingData]:
    """A model close by, to be learned from, and what it answers, to be learned as labels."""
    teacher = ModelFile(networks.save(networks.shaken(model.load(), LESSON), folder))
    feeds, session = _feeds(model, TRAINING_CALLS), ort.InferenceSession(teacher.path)
    answers = [session.run(None, call.feed) for call in feeds.calls(1)]
    names = [output.name for output in session.get_outputs()]
    return teacher, TrainingData(feeds, {name: np.stack(found) for name, *found in zip(names, *answers, strict=True)})


def _apply(name: str, model: ModelFile, scratch: Path) -> PassResult:
    scratch.mkdir()
    config = CATALOGUE[name].config.model_validate({"pass": name, **ARGUMENTS.get(name, {})})
    original, training = _lesson(model, scratch.parent / "teacher") if name in TAUGHT else (model, None)
    context = PassContext(scratch, _feeds(model), seed=0, threads=1, training=training, original=original)
    return load_pass(name)(model, config, context)


def _save(network: Network, folder: Path) -> ModelFile:
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", "cat,dog"
    return ModelFile(networks.save(model, folder))


def _face(path: Path) -> list[tuple[str, str, list[object]]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [(value.name, value.type, value.shape) for value in [*session.get_inputs(), *session.get_outputs()]]


def _sqnr_db(before: ModelFile, after: ModelFile) -> float:
    sessions = [ort.InferenceSession(one.path, providers=["CPUExecutionProvider"]) for one in (before, after)]
    signal = noise = 0.0
    for call in _feeds(before).calls(1):
        for left, right in zip(*(session.run(None, call.feed) for session in sessions), strict=True):
            signal += float(np.sum(left.astype(np.float64) ** 2))
            noise += float(np.sum((left.astype(np.float64) - right) ** 2))
    return np.inf if noise == 0 else 10 * np.log10(signal / noise)


@dataclass(frozen=True)
class Run:
    """A pass on a network: the model's files as they were before, and what came of it."""

    model: ModelFile
    before: dict[Path, bytes]
    result: PassResult

    @classmethod
    def of(cls, name: str, network: Network, folder: Path) -> "Run":
        model = _save(network, folder / "model")
        return cls(model, _files_beside(model), _apply(name, model, folder / "scratch"))

    def digest(self) -> str:
        return hashlib.sha256(self.result.model.path.read_bytes()).hexdigest()


def _files_beside(model: ModelFile) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in model.path.parent.iterdir()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Run]:
    """`run(pass, network)`, by their names; once each."""
    by_name = {network.name: network for network in NETWORKS}
    return cache(lambda name, network: Run.of(name, by_name[network], tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        pytest.param(
            name,
            network,
            id=f"{name}-{network.name}",
            marks=[pytest.mark.long] if name in TAUGHT and network.name not in ALWAYS_TAUGHT else [],
        )
        for name in CATALOGUE
        for network in NETWORKS
    ],
)
def test_a_pass_keeps_its_contract(name: str, network: Network, run: Callable[[str, str], Run]) -> None:
    if name in network.refused:
        with pytest.raises(UserFault):
            run(name, network.name)
        return
    made = run(name, network.name)
    model, result = made.model, made.result

    assert _files_beside(model) == made.before
    assert _face(result.model.path) == _face(model.path)
    assert {entry.key: entry.value for entry in result.model.structure().metadata_props} == {"classes": "cat,dog"}
    assert result.modified == (result.model.sha256() != model.sha256())
    assert result.modified == (name not in network.idle), result.notes
    assert _sqnr_db(model, result.model) >= FLOORS[name]
    onnx.checker.check_model(result.model.path)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By pass, hashes of its results, as another process made them that hashes strings otherwise."""
    script = (
        "import json, sys; from pathlib import Path; from tests.worker.passes import test_contract as contract;"
        "print(json.dumps(contract.digests_in(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path_factory.mktemp("another"))],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    digests: dict[str, list[str]] = json.loads(done.stdout)
    return digests


def digests_in(folder: Path) -> dict[str, list[str]]:
    """What the fixture above asks of the other process."""
    varied = [network for network in NETWORKS if network.name in VARIED]
    return {
        name: [Run.of(name, network, folder / name / network.name).digest() for network in varied] for name in CATALOGUE
    }


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_same_seed_gives_the_same_bytes_in_another_process(
    name: str, run: Callable[[str, str], Run], elsewhere: dict[str, list[str]]
) -> None:
    """An order taken from a set would show."""
    assert elsewhere[name] == [run(name, network).digest() for network in VARIED]
