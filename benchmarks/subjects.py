"""The models that are optimized, each with data to calibrate on and other data to be judged on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import digit_images, random_samples
from benchmarks.children import ROOT, ChildFailed, run_in_child
from benchmarks.entries import Kind
from benchmarks.tasks import write_arrays

CALIBRATION_SEED, HELD_OUT_SEED = 1, 2
LABELS = "label"
TRAINING_SOURCES = ("digit_networks", "wide_digit_networks", "digit_training", "digit_images", "exporting")
BUILDING_SOURCES = ("architectures", "random_samples", "exporting")


class NotThere(Exception):
    """A model cannot be had here; the message says what is missing."""


@dataclass(frozen=True)
class Scale:
    """Samples: to calibrate on and to be judged on, random ones and digits."""

    random_calibration: int
    random_held_out: int
    digit_calibration: int
    digit_held_out: int


FULL = Scale(64, 32, 256, 2000)
QUICK = Scale(8, 4, 64, 500)


@dataclass(frozen=True)
class Plan:
    """A model by name. `fuse` is what ONNX Runtime's transformer optimizer calls such a model; `aim` is Lathe's."""

    name: str
    title: str
    kind: Kind
    aim: str
    fuse: str | None = None
    batch: int = 1
    """Samples of the call that is timed."""

    @property
    def is_trained(self) -> bool:
        return self.name.startswith("digits-")


TRAINED_AIM = "no slower; within 0.2 points of float; not below the best peer"
PLANS = (
    Plan("resnet50", "ResNet-50", "convolutional", ">= 3.2 x, SQNR 2 dB above the best peer"),
    Plan("mobilenetv2", "MobileNetV2", "convolutional", ">= 2.6 x"),
    Plan("efficientnet-b0", "EfficientNet-B0", "convolutional", ">= 1.5 x"),
    Plan("vit-b16", "ViT-B/16", "transformer", ">= 2.9 x", "vit"),
    Plan("bert-base", "BERT-base, 128 tokens", "transformer", ">= 1.1 x the best peer", "bert"),
    Plan("digits-plain", "digits: plain CNN", "convolutional", TRAINED_AIM),
    Plan("digits-residual", "digits: residual CNN", "convolutional", TRAINED_AIM),
    Plan("digits-depthwise", "digits: depthwise-separable CNN", "convolutional", TRAINED_AIM),
    Plan("digits-vit", "digits: small ViT", "transformer", TRAINED_AIM),
    Plan("digits-lstm", "digits: LSTM", "recurrent", TRAINED_AIM),
    Plan("digits-mlp", "digits: MLP", "dense", TRAINED_AIM),
)


@dataclass(frozen=True)
class Subject:
    """Files of one model: `model` alone in its folder; arrays by input name; labels where it is trained."""

    plan: Plan
    model: Path
    folder: Path

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration"

    @property
    def held_out(self) -> Path:
        return self.folder / "held-out"

    @property
    def labels(self) -> Path:
        return self.folder / "labels.npy"

    @property
    def training(self) -> Path:
        """Images and labels of the digits that trained the model."""
        return self.folder / "training"

    @property
    def weights(self) -> Path:
        """The tensors of the torch module that was trained."""
        return self.model.parent.with_suffix(".safetensors")


def prepare_subject(plan: Plan, out: Path, scale: Scale, mnist: Path | None, say: Callable[[str], None]) -> Subject:
    """Build or train the model, unless an earlier run has, and write its data below `out`.

    Raises:
        NotThere: a library or the digits are missing, or the model could not be made.

    """
    if plan.is_trained and mnist is None:
        raise NotThere("no digits: say where their IDX files are (--mnist FOLDER)")
    folder = out / plan.name
    subject = Subject(plan, folder / f"float-{_recipe_hash(plan)}" / "model.onnx", folder)
    if not subject.model.exists():
        _make(subject, mnist, say)
    if mnist is not None and plan.is_trained:
        write_digits(subject, scale, mnist)
    else:
        write_arrays(subject.calibration, random_arrays(plan, scale.random_calibration, CALIBRATION_SEED))
        write_arrays(subject.held_out, random_arrays(plan, scale.random_held_out, HELD_OUT_SEED))
    return subject


def _make(subject: Subject, mnist: Path | None, say: Callable[[str], None]) -> None:
    plan = subject.plan
    needed = ("torch",) if plan.is_trained else ("torch", "transformers")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise NotThere(f"not installed: {', '.join(missing)}")
    partial = subject.model.with_name("partial.onnx")
    partial.parent.mkdir(parents=True, exist_ok=True)
    say(f"{'training' if plan.is_trained else 'building'} {plan.title}")
    arguments = {"name": plan.name, "target": str(partial)}
    try:
        if plan.is_trained:
            given = {**arguments, "digits": str(mnist), "weights": str(subject.weights)}
            answer = run_in_child("benchmarks.digit_training:train", given)
            say(f"trained in {answer.value['seconds']:.0f} s, {answer.value['accuracy']:.2%} of the digits kept")
        else:
            run_in_child("benchmarks.architectures:write", arguments)
    except ChildFailed as error:
        raise NotThere(f"it could not be made: {error}") from error
    partial.replace(subject.model)


def _recipe_hash(plan: Plan) -> str:
    """Of the sources that make the model: a file of another recipe is another file."""
    names = TRAINING_SOURCES if plan.is_trained else BUILDING_SOURCES
    sources = b"".join((ROOT / "benchmarks" / f"{name}.py").read_bytes() for name in names)
    return hashlib.sha256(sources).hexdigest()[:8]


def random_arrays(plan: Plan, count: int, seed: int) -> dict[str, np.ndarray]:
    """Input for a model whose weights are random."""
    if plan.name == "bert-base":
        return random_samples.tokens(count, seed)
    return {"pixel_values": random_samples.images(count, seed)}


def write_digits(subject: Subject, scale: Scale, mnist: Path) -> None:
    """Calibration is drawn from the digits that trained the model, never from those that judge it."""
    try:
        images, labels = digit_images.read_digits(mnist)
    except (OSError, digit_images.BrokenIdx) as error:
        raise NotThere(f"the digits cannot be read: {error}") from error
    drawn = np.random.default_rng(CALIBRATION_SEED).permutation(digit_images.TRAINING)[: scale.digit_calibration]
    kept = slice(digit_images.TRAINING, digit_images.TRAINING + scale.digit_held_out)
    write_arrays(subject.calibration, {"image": images[drawn]})
    write_arrays(subject.held_out, {"image": images[kept]})
    np.save(subject.labels, labels[kept])
    learned = slice(digit_images.TRAINING)
    write_arrays(subject.training, {"image": images[learned], LABELS: labels[learned]})
