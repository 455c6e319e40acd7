"""What is compared on compression: an experiment is a network, an aim, and ways to make files of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from benchmarks.children import run_in_child
from benchmarks.comparing import Run
from benchmarks.entries import Entry
from benchmarks.subjects import Plan

RESIDUAL = Plan("digits-wide-residual", "wide residual CNN", "convolutional", "", batch=16)
MLP = Plan("digits-wide-mlp", "wide MLP", "dense", "", batch=64)
VIT = Plan("digits-wide-vit", "wide ViT", "transformer", "", batch=16)
STUDENT_ID = str(UUID(int=1))
STUDENT_SEEDS, STUDENT_EPOCHS = (0, 1, 2), 10
HALF = {"pass": "prune_structured", "target": {"mac_ratio": 0.5}}
LATENCY = {"pass": "prune_structured", "target": {"latency_ratio": 0.6}}
# A tenth of the digits is held out: 7,200 are left to train on.
FINE_TUNINGS: Mapping[str, Mapping[str, Any]] = {
    "10 steps": {"epochs": 1, "batch_size": 720},
    "1 epoch": {"epochs": 1},
    "5 epochs": {"epochs": 5},
}
LOW_BITS: Mapping[str, Any] = {"4 bits": 4, "2 bits": 2, "ternary": "ternary", "binary": "binary"}
# Training that changes nothing: the form alone, from which the others begin.
ROUNDED = {"epochs": 1, "learning_rate": 1e-12}


@dataclass(frozen=True)
class Experiment:
    """`student` is the network that is trained beside, from several beginnings."""

    name: str
    title: str
    aim: str
    plan: Plan
    entries: tuple[Entry, ...] = ()
    student: str = ""


def _ours(name: str, title: str, *recipe: Mapping[str, Any], start: str = "", **options: Any) -> Entry:
    given = {"recipe": [dict(step) for step in recipe], **options}
    return Entry(name, f"Lathe {title}", "lathe", "benchmarks.ours:follow", given, start=start)


def _half() -> Experiment:
    distill, aware = {"pass": "distill", "epochs": 5}, {"pass": "quantize_aware_training", "epochs": 3}
    return Experiment(
        "half",
        "Half the MACs of a residual CNN",
        "label-free within 0.3 points in under a minute, at most 0.65 of the latency (1.54 x); with distillation and "
        "int8 within 0.3 points and 1.5 x as fast as int8 alone",
        RESIDUAL,
        (
            _ours("half", "prune_structured, label-free", HALF),
            _ours("latency", "prune_structured to 0.6 of the latency", LATENCY),
            _ours("int8", "quantize_static", {"pass": "quantize_static"}),
            _ours("half-int8", "prune_structured, quantize_static", HALF, {"pass": "quantize_static"}),
            _ours("half-taught-aware", "prune_structured, distill, quantize_aware_training", HALF, distill, aware),
        ),
    )


def _quarter() -> Experiment:
    options = {"name": RESIDUAL.name, "ratio": 0.75}
    rival = Entry(
        "torch-pruning", "Torch-Pruning, magnitude", "peer", "benchmarks.rivals.with_torch_pruning:prune", options
    )
    ours = _ours("quarter", "prune_structured", {"pass": "prune_structured", "ratio": 0.75})
    entries = [Entry(**vars(rival) | {"package": "torch_pruning"}), ours]
    for words, arguments in FINE_TUNINGS.items():
        for entry in (rival, ours):
            title = f"{entry.title.removeprefix('Lathe ')}, fine_tune for {words}"
            name = f"{entry.name}-{words.replace(' ', '-')}"
            entries.append(_ours(name, title, {"pass": "fine_tune"} | arguments, start=entry.name))
    folded = {"pass": "fine_tune", "epochs": 5, "restore_normalization": False}
    entries.append(
        _ours(
            "quarter-folded",
            "prune_structured, fine_tune for 5 epochs, normalization left folded",
            folded,
            start=ours.name,
        )
    )
    return Experiment(
        "quarter",
        "Three quarters of the channels of a residual CNN gone",
        "2 points better than magnitude pruning by Torch-Pruning with the same fine-tuning",
        RESIDUAL,
        tuple(entries),
    )


def _student(plan: Plan) -> Experiment:
    kind = plan.name.removeprefix("digits-wide-")
    return Experiment(
        f"student-{kind}",
        f"A student of a quarter of the {plan.title}",
        "distilled better than trained on labels alone",
        plan,
        student=f"digits-student-{kind}",
    )


def build_students(experiment: Experiment, run: Run) -> list[Entry]:
    """Students as drawn by several seeds, each to be trained on labels alone and distilled, the loss apart the same.

    Raises:
        ChildFailed: one could not be written.

    """
    entries: list[Entry] = []
    for seed in STUDENT_SEEDS if experiment.student else ():
        target = run.out / experiment.student / f"untrained-{seed}" / "model.onnx"
        named = {"name": experiment.student, "seed": seed}
        plain = f"plain torch, student {seed}, labels alone"
        options = named | {"epochs": STUDENT_EPOCHS}
        entries.append(Entry(f"torch-{seed}", plain, "peer", "benchmarks.rivals.with_torch:train", options, "torch"))
        arguments = named | {"digits": str(run.mnist), "target": str(target)}
        run_in_child("benchmarks.digit_training:write_untrained", arguments)
        common = {"pass": "distill", "student": STUDENT_ID, "epochs": STUDENT_EPOCHS}
        for name, words, weights in (
            ("labels", "labels alone", {"alpha": 0, "gamma": 1}),
            ("distilled", "distilled", {"alpha": 1, "gamma": 1}),
        ):
            title, others = f"student {seed}, {words}", {STUDENT_ID: str(target)}
            entries.append(_ours(f"{name}-{seed}", title, common | weights, others=others))
    return entries


def _low_rank(plan: Plan) -> Experiment:
    one = {"pass": "factorize_low_rank"}
    return Experiment(
        f"low-rank-{plan.name.removeprefix('digits-wide-')}",
        f"Low rank on a {plan.title}",
        "1.3 x within 0.5 points, or not kept",
        plan,
        (
            _ours("low-rank", "factorize_low_rank", one),
            _ours("low-rank-taught", "factorize_low_rank, distill", one, {"pass": "distill", "epochs": 5}),
        ),
    )


def _low_bits(plan: Plan) -> Experiment:
    aware = {"pass": "quantize_aware_training", "epochs": 5}
    entries = [
        _ours("static", "quantize_static", {"pass": "quantize_static"}),
        _ours("aware", "quantize_aware_training, 8 bits", aware),
        _ours("weights-4", "quantize_weights, 4 bits", {"pass": "quantize_weights", "bits": 4}),
    ]
    for name, bits in LOW_BITS.items():
        stem, few = name.replace(" ", "-"), {"weight_bits": bits}
        entries.append(_ours(f"rounded-{stem}", f"{name}, rounded alone", aware | few | ROUNDED))
        entries.append(_ours(f"aware-{stem}", f"quantize_aware_training, {name}", aware | few))
    return Experiment(
        f"bits-{plan.name.removeprefix('digits-wide-')}",
        f"Few bits in a {plan.title}",
        "accuracies with training beside those without",
        plan,
        tuple(entries),
    )


EXPERIMENTS = (
    _half(),
    _quarter(),
    _student(RESIDUAL),
    _student(VIT),
    _low_rank(MLP),
    _low_rank(VIT),
    _low_bits(RESIDUAL),
    _low_bits(MLP),
)
