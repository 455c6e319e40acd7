"""Every kind of cause: the evidence for it, by itself, gives its sentence and no other; and which comes first."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from app.jobs.report import Deployment, DeploymentCheck, Interval, Kernels, KernelTime, Layer, Step
from app.recipes.request import OptimizeRequest
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.evaluation.one_call import Footprint
from worker.engine.evaluation.requests import KernelReport
from worker.engine.feeds import Feeds
from worker.engine.graph_file import read_graph
from worker.engine.int8.choosing import without_slow
from worker.engine.int8.eligible import eligible
from worker.engine.int8.layers import layers_of
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.runner import causes
from worker.runner.causes import Evidence, find_causes
from worker.runner.job_data import JobData
from worker.runner.measuring import Subject

FOOTPRINT = Footprint(load_ms=1, peak_memory_bytes=1, baseline_memory_bytes=1, call_ms=1, outputs={})
MEGABYTE = 1 << 20


def step(name: str = "optimize_graph", *, modified: bool = True, **others: Any) -> Step:
    return Step.model_validate({"pass": name, "parameters": {}, "modified": modified, "seconds": 1, **others})


def kernel(operator: str, kind: str, share: float) -> KernelTime:
    return KernelTime.model_validate({"operator": operator, "kind": kind, "node_count": 1, "share": share})


def kernels(*ran: KernelTime, float_nodes: dict[str, list[str]] | None = None) -> KernelReport:
    """As a profile of these is summarized, most time first; `float_nodes` by operator, their names."""
    shares = {kind: sum(one.share for one in ran if one.kind == kind) for kind in ("int8", "float", "conversion")}
    return KernelReport(
        kernels=Kernels(
            int8_share=shares["int8"],
            float_share=shares["float"],
            conversion_share=shares["conversion"],
            other_share=1 - sum(shares.values()),
            by_operator=list(ran),
        ),
        float_nodes=float_nodes or {},
        float_node_shares={one.operator: one.share for one in ran if one.operator in (float_nodes or {})},
        quantized=shares["int8"] > 0,
    )


def left(name: str, reason: str, milliseconds: float | None) -> Layer:
    return Layer(name=name, operator="Conv", planned="float", reason=reason, float_ms=milliseconds)


def with_table(rows: int) -> onnx.ModelProto:
    """`i` (N) -> `y` (N, 8): rows of a table, by a product with 8 x 8 weights."""
    text = "network (int64[N] i) => (float[N,8] y) { t = Gather(table, i) y = MatMul(t, w) }"
    return networks.prepared(text, table=normal(rows, 8), w=normal(8, 8))


@dataclass(frozen=True)
class Found:
    """What a job found, apart from what is so by default: one pass that made a file 1.5 times as fast."""

    passes: list[Step] = field(default_factory=lambda: [step()])
    ratio: Interval = field(default_factory=lambda: Interval(value=1.5, low=1.4, high=1.6))
    baseline_ms: float = 5.0
    ran: KernelReport = field(default_factory=lambda: kernels(kernel("Conv", "float", 1.0)))
    candidate_bytes: int = MEGABYTE // 2
    candidate: onnx.ModelProto = field(default_factory=networks.perceptron)
    random: frozenset[str] = frozenset()
    """Roles of which there was random data."""
    checks: list[DeploymentCheck] = field(default_factory=list)
    device: str = "cpu"


def causes_of(found: Found, folder: Path) -> list[str]:
    body = {"model_id": uuid.uuid4(), "recipe": [{"pass": "optimize_graph"}], "target": {"device": found.device}}
    feeds = Feeds({}, {}, frozenset(), 1)
    data = JobData(
        calibration=feeds,
        evaluation=feeds,
        latency=feeds,
        batch=1,
        labels={},
        words={},
        random_calibration="calibration" in found.random,
        random_evaluation="evaluation" in found.random,
    )
    before, after = (
        ModelFile(networks.save(model, folder / name))
        for name, model in (("before", networks.perceptron()), ("after", found.candidate))
    )
    plain = kernels(kernel("Conv", "float", 1.0))
    return find_causes(
        Evidence(
            request=OptimizeRequest.model_validate(body),
            data=data,
            steps=found.passes,
            baseline=Subject(before, MEGABYTE, MEGABYTE, FOOTPRINT, plain),
            candidate=Subject(after, found.candidate_bytes, found.candidate_bytes, FOOTPRINT, found.ran),
            ratio=found.ratio,
            baseline_ms=found.baseline_ms,
            deployment=Deployment(checks=found.checks, seconds=1) if found.checks else None,
        )
    )


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with VNNI, whatever this machine has."""
    monkeypatch.setattr(causes, "needs_reduced_range", lambda: False)


@dataclass(frozen=True)
class Case:
    id: str
    found: Found
    sentences: list[str]


INT8 = kernel("QLinearConv", "int8", 0.9)
SLOWER = Interval(value=0.8, low=0.7, high=0.9)
IN_HALF = networks.holding(
    "network (float[N,8] x) => (float[N,8] y) { c = Cast<to = 1>(w) y = MatMul(x, c) }",
    w=normal(8, 8).astype("float16"),
)
LARGER_BY_SCALES = (
    "The file grew: names, scales and zero points of the new nodes take more than the smaller weights saved."
)
CASES = [
    Case("nothing-to-say", Found(), []),
    Case(
        "deployment-check",
        Found(checks=[DeploymentCheck(name="memory", outcome="failed", words="It grows by 2 MB a call.")]),
        ["Deployment check failed, `memory`: It grows by 2 MB a call."],
    ),
    Case(
        "no-pass-changed-anything",
        Found([step(modified=False, notes=["Prepared.", "No rewrite applies."]), step("compile", modified=False)]),
        ["No pass changed the model: `optimize_graph`: No rewrite applies.; `compile` found nothing to do."],
    ),
    Case(
        "one-pass-changed-nothing",
        Found([step(), step("prune_unstructured", modified=False)]),
        ["`prune_unstructured` changed nothing."],
    ),
    Case(
        "random-ranges",
        Found([step("quantize_static", parameters={"bits": 8})], random=frozenset({"calibration"})),
        ["Activation ranges were calibrated on random input: accuracy on real input may be far worse."],
    ),
    Case("random-ranges-of-nothing", Found(random=frozenset({"calibration"})), []),
    Case(
        "random-evaluation",
        Found(random=frozenset({"evaluation"})),
        ["No data given: measured on random input, agreement only."],
    ),
    Case(
        "within-noise",
        Found(ratio=Interval(value=1.01, low=0.97, high=1.05)),
        ["The change in latency is within the noise: ratio 1.01, 95 % interval 0.97 to 1.05."],
    ),
    Case(
        "small-model",
        Found(baseline_ms=0.0421),
        [
            "The model is small: a call of the original takes 0.042 ms, much of it the overhead of calling, which no "
            "pass removes."
        ],
    ),
    Case(
        "conversions",
        Found(ran=kernels(kernel("Conv", "float", 0.8), kernel("QuantizeLinear", "conversion", 0.2))),
        ["Conversions cost time: 20% of kernel time goes into QuantizeLinear."],
    ),
    Case(
        "slower-because-of-conversions",
        Found(
            ratio=SLOWER,
            ran=kernels(
                kernel("Conv", "float", 0.6),
                kernel("DequantizeLinear", "conversion", 0.3),
                kernel("QuantizeLinear", "conversion", 0.1),
            ),
        ),
        ["Slower because of conversions: 40% of kernel time goes into DequantizeLinear, QuantizeLinear."],
    ),
    Case("eight-bits", Found(ran=kernels(INT8)), ["90% of kernel time is 8-bit arithmetic."]),
    Case(
        "float-nodes-most-time-first",
        Found(
            ran=kernels(
                kernel("QLinearConv", "int8", 0.3),
                kernel("Conv", "float", 0.5),
                kernel("Gemm", "float", 0.2),
                float_nodes={"Gemm": ["head"], "Conv": [f"c{number}" for number in range(6)]},
            )
        ),
        [
            "30% of kernel time is 8-bit arithmetic.",
            "float Conv at 6 nodes (50% of kernel time): c0, c1, c2, c3, c4, ....",
            "float Gemm at 1 node (20% of kernel time): head.",
        ],
    ),
    Case(
        "no-eight-bit-form",
        Found(ran=kernels(kernel("QLinearConv", "int8", 0.4), kernel("LSTM", "float", 0.6))),
        ["40% of kernel time is 8-bit arithmetic.", "Operators without an 8-bit form take time in float: LSTM 60%."],
    ),
    Case(
        "float16-on-a-cpu",
        Found([step("convert_float16")], candidate=IN_HALF),
        ["float16 is computed in float32 on a CPU: it halves the size and makes no arithmetic faster."],
    ),
    Case("float16-on-a-gpu", Found([step("convert_float16")], device="cuda", candidate=IN_HALF), []),
    Case("float16-that-is-float32-again", Found([step("convert_float16"), step("compile")]), []),
    Case(
        "zeros",
        Found([step("prune_unstructured")]),
        ["Zeros among weights make nothing faster: ONNX Runtime multiplies by them as by any number."],
    ),
    Case(
        "file-grew-in-int8",
        Found([step("quantize_static"), step("compile")], ran=kernels(INT8), candidate_bytes=MEGABYTE + 1),
        ["90% of kernel time is 8-bit arithmetic.", LARGER_BY_SCALES],
    ),
    Case(
        "file-grew-with-weights-in-few-bits",
        Found([step("quantize_weights")], candidate_bytes=MEGABYTE + 1),
        [LARGER_BY_SCALES],
    ),
    Case(
        "file-grew-as-it-was-compiled",
        Found([step("quantize_weights"), step("compile")], candidate_bytes=MEGABYTE + 1),
        ["The file grew: `compile` writes weights as this machine's kernels read them, few bits as float32."],
    ),
    Case("file-grew", Found(candidate_bytes=MEGABYTE + 1), ["The file grew."]),
    Case(
        "one-large-table",
        Found(candidate=with_table(rows=72)),
        ["90% of the weights are one table that a Gather reads: only what shrinks it shrinks the file."],
    ),
    Case("one-small-table", Found(candidate=with_table(rows=8)), []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_kind_of_evidence_gives_its_sentence(case: Case, tmp_path: Path) -> None:
    assert causes_of(case.found, tmp_path) == case.sentences


def test_a_processor_without_vnni_is_said_of_a_file_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "needs_reduced_range", lambda: True)
    assert causes_of(Found(), tmp_path / "float") == []
    found = causes_of(Found(ran=kernels(INT8)), tmp_path / "int8")
    assert found[1:] == ["This processor has no VNNI: 8-bit products gain little here."]


NETWORK = (
    "network (float[1,8,16,16] x) => (float[1,8,16,16] y) { a = Conv<group = 8, pads = [1, 1, 1, 1]>(x, d) "
    "b = Conv(a, p) c = Conv<group = 8, pads = [1, 1, 1, 1]>(b, e) y = Softmax(c) }"
)
DEPTHWISE = "depthwise 3x3 Conv in int8 is slower than in float here, conversions included: 2 Conv kept in float."
SOFTMAX = "Softmax in int8 is slower than in float: 1 Softmax kept in float."


@pytest.mark.parametrize(
    ("depthwise_ms", "softmax_ms", "sentences"),
    [(2.0, 1.0, [DEPTHWISE, SOFTMAX]), (0.2, 1.0, [SOFTMAX, DEPTHWISE]), (0.5, 1.0, [DEPTHWISE, SOFTMAX])],
    ids=["depthwise-takes-longer", "softmax-takes-longer", "more-nodes-where-times-are-equal"],
)
def test_what_stayed_in_float_is_named_by_the_time_that_it_takes(
    depthwise_ms: float, softmax_ms: float, sentences: list[str], tmp_path: Path
) -> None:
    """As `quantize_static` places the nodes of a graph and accounts for them, not as a test writes it down."""
    filters = normal(8, 1, 3, 3)
    model = networks.prepared(NETWORK, d=filters, p=normal(8, 8, 1, 1), e=filters)
    graph = read_graph(ModelFile(networks.save(model, tmp_path / "graph")))
    everything = eligible(units_of(graph), False, None, [])
    slow = [unit.name for unit in everything.units if unit.in_words == "depthwise 3x3 Conv"]
    times = {unit.name: (softmax_ms if unit.node.op_type == "Softmax" else 0.1, 1.0) for unit in everything.units}
    times |= dict.fromkeys(slow, (depthwise_ms, 3.0))
    layers = layers_of(without_slow(everything, slow), [], times, {}, {})
    quantized = step("quantize_static", layers=layers)
    assert causes_of(Found([quantized], SLOWER), tmp_path / "slower") == sentences
    # Nobody asks why where the gain is worth while.
    assert causes_of(Found([quantized]), tmp_path / "faster") == []


def test_only_the_reasons_that_cost_most_are_named(tmp_path: Path) -> None:
    layers = [left("a", "untimed", None), left("b", "third", 1.0), left("c", "first", 2.0), left("d", "second", 1.5)]
    found = causes_of(Found([step("quantize_static", layers=layers)], SLOWER), tmp_path / "timed")
    assert found == [f"{reason}: 1 Conv kept in float." for reason in ("first", "second", "third")]
    # What has no int8 kernel is timed in the result alone.
    layers += [
        left(name, "no kernel", None).model_copy(update={"operator": "GRU", "executed_ms": 3.0}) for name in "ef"
    ]
    found = causes_of(Found([step("quantize_static", layers=layers)], SLOWER), tmp_path / "executed")
    assert found[0] == "no kernel: 2 GRU kept in float."


def test_what_speaks_against_the_file_comes_first_and_its_size_last(tmp_path: Path) -> None:
    everything = Found(
        passes=[
            step("quantize_static", parameters={"bits": 8}, layers=[left("a", "too noisy in int8", 1.0)]),
            step("compile", modified=False),
        ],
        ratio=Interval(value=0.9, low=0.8, high=1.1),
        baseline_ms=0.01,
        ran=kernels(kernel("QLinearConv", "int8", 0.5), kernel("QuantizeLinear", "conversion", 0.5)),
        candidate_bytes=2 * MEGABYTE,
        candidate=with_table(rows=72),
        random=frozenset({"calibration", "evaluation"}),
        checks=[DeploymentCheck(name="loads", outcome="failed", words="It does not load.")],
    )
    beginnings = [
        "Deployment check failed",
        "`compile` changed nothing",
        "Activation ranges were calibrated on random input",
        "No data given",
        "The change in latency is within the noise",
        "The model is small",
        "too noisy in int8",
        "Slower because of conversions",
        "50% of kernel time is 8-bit arithmetic",
        "The file grew",
        "90% of the weights are one table",
    ]
    found = causes_of(everything, tmp_path)
    assert len(found) == len(beginnings)
    assert [cause for cause, words in zip(found, beginnings, strict=True) if not cause.startswith(words)] == []
