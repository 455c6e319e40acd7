"""BatchNormalization back behind convolutions that it was folded into, for as long as they are trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.recipes.training import FineTune
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import holding, normal
from tests.worker.passes.schooling import Job
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, TrainingData
from worker.engine.sessions import open_session, run_session
from worker.engine.trainable.write_back import write_back
from worker.engine.training import normalizing
from worker.engine.training.batches import split
from worker.engine.training.lesson import Lesson, plan_lesson
from worker.engine.training.normalizing import Restored, restore_normalization
from worker.engine.training.student import prepare_student

SAMPLES = 96
IMAGES = normal(SAMPLES, 2, 6, 6)
CLASSES = np.arange(SAMPLES) % 3
HEAD = "m = GlobalAveragePool(s) f = Flatten(m) y = Gemm<transB = 1>(f, h, hb)"


def between(inner: str, head: str = HEAD) -> str:
    """A network whose first convolution ends in `r`, and whose head makes answers of `s`."""
    first = "a = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(a)"
    return f"g (float[N,2,6,6] x) => (float[N,3] y) {{ {first} {inner} {head} }}"


RESIDUAL = between("c = Conv<pads = [1,1,1,1]>(r, v, d) s = Add(c, r)")
# No sample by itself: their mean is taken off.
MIXED = between("t = ReduceMean<axes = [0]>(r) o = Sub(r, t) c = Conv<pads = [1,1,1,1]>(o, v, d) s = Add(c, o)")
# By the names of weights: their shapes. Those of one axis are biases, scales and shifts.
SHAPES = {"w": (4, 2, 3, 3), "b": (4,), "v": (4, 4, 3, 3), "d": (4,), "h": (3, 4), "hb": (3,), "p": (4, 4, 1, 1)}
WEIGHTS = {name: normal(*shape, seed=seed) / 2 for seed, (name, shape) in enumerate(SHAPES.items())}
WEIGHTS |= {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32), "k": normal(3, 4, 1, 1, seed=20)}
Saved = Callable[..., ModelFile]


def restored_in(lesson: Lesson, tmp_path: Path) -> Restored:
    return restore_normalization(lesson, PassContext(tmp_path / "unused", lesson.student.feeds, seed=0, threads=1))


def lesson_of(
    text: str,
    saved: Saved,
    context: SamplesContext,
    labels: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] = WEIGHTS,
    images: np.ndarray = IMAGES,
    names: Mapping[str, str] = {},
    **arguments: Any,
) -> Lesson:
    """`names` renames values."""
    model = holding(text, **weights)
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    given = context(model, x=images)
    data = TrainingData(given.feeds, dict(labels or {"label": CLASSES}))
    options = FineTune.model_validate({"pass": "fine_tune", **arguments})
    within = replace(given, training=data)
    return plan_lesson(prepare_student(saved(model), data, options, within), options, within)


def answers(lesson: Lesson, images: np.ndarray = IMAGES, *, training: bool = False) -> np.ndarray:
    with torch.no_grad():
        made = lesson.student.module.train(training)({"x": torch.from_numpy(images)}, ["y"])["y"]
    return np.asarray(made.numpy())


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        pytest.param(RESIDUAL, ["w", "v"], id="a-residual-block"),
        pytest.param(
            between("c = Conv(r, k) s = Relu(c)", "m = GlobalAveragePool(s) y = Flatten(m)"),
            ["w"],
            id="not-where-answers-are-made",
        ),
        pytest.param(
            between("c = Conv<pads = [1,1,1,1]>(r, v) s = Add(c, r)"),
            ["w"],
            id="not-without-a-bias-to-fold-it-into",
        ),
        pytest.param(
            between("c = Conv<pads = [1,1,1,1]>(r, v, b) s = Add(c, r)"),
            [],
            id="not-where-two-share-a-bias",
        ),
        pytest.param(
            between("c = Conv(r, p, d) s = BatchNormalization(c, one, zero, zero, one)"),
            ["w"],
            id="not-before-one-that-is-there",
        ),
        pytest.param(
            between(
                "t = Transpose<perm = [0,2,3,1]>(r) n = LayerNormalization(t, one, zero) "
                "s = Transpose<perm = [0,3,1,2]>(n)"
            ),
            [],
            id="not-in-a-network-with-another-normalization",
        ),
        pytest.param(
            between("q = Mul(r, r) e = GlobalAveragePool(q) n = Sqrt(e) s = Div(r, n)"),
            [],
            id="nor-with-one-that-an-exporter-took-apart",
        ),
        pytest.param(
            between("q = GlobalAveragePool(r) e = Conv(q, p, d) t = Tanh(e) s = Mul(r, t)"),
            ["w"],
            id="not-where-channels-are-weighed",
        ),
        pytest.param(RESIDUAL.replace("[N,", "[8,"), ["w", "v"], id="where-a-fixed-batch-may-be-exceeded"),
        pytest.param(MIXED.replace("[N,", "[8,"), [], id="not-where-it-may-not-and-is-small"),
        pytest.param(MIXED.replace("[N,", "[16,"), ["w", "v"], id="where-it-is-large-enough"),
    ],
)
def test_it_goes_where_it_may_have_been(
    text: str, weights: list[str], saved: Saved, context: SamplesContext, tmp_path: Path
) -> None:
    assert restored_in(lesson_of(text, saved, context), tmp_path).weights == weights


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        pytest.param({"restore_normalization": False}, {"label": CLASSES}, id="not-asked-for"),
        pytest.param({"freeze_statistics": True}, {"label": CLASSES}, id="statistics-are-to-stay"),
        pytest.param({"batch_size": 8}, {"label": CLASSES}, id="few-samples-a-step"),
        pytest.param({}, {"y": normal(SAMPLES, 3)}, id="numbers-are-learned"),
        pytest.param({"freeze": ["w", "d"]}, {"label": CLASSES}, id="a-weight-or-bias-is-frozen"),
    ],
)
def test_it_stays_away(
    arguments: dict[str, Any], labels: dict[str, np.ndarray], saved: Saved, context: SamplesContext, tmp_path: Path
) -> None:
    lesson = lesson_of(RESIDUAL, saved, context, labels, **arguments)
    before = answers(lesson)
    restored = restored_in(lesson, tmp_path)
    assert (restored.weights, restored.in_words()) == ([], [])
    assert restored.lesson.student.tensors.keys() == lesson.student.tensors.keys()
    assert np.array_equal(answers(lesson), before)


@pytest.mark.parametrize("name", ["scale of c", "c, not normalized"])
def test_it_stays_away_where_its_names_are_taken(
    name: str, saved: Saved, context: SamplesContext, tmp_path: Path
) -> None:
    lesson = lesson_of(RESIDUAL, saved, context, names={"r": name})
    assert restored_in(lesson, tmp_path).weights == ["w"]


@pytest.mark.parametrize("training", [False, True])
def test_it_changes_nothing_until_it_is_trained(
    training: bool, saved: Saved, context: SamplesContext, tmp_path: Path
) -> None:
    """Not even the answers to a whole batch, whose statistics are those that it begins with."""
    lesson = lesson_of(RESIDUAL, saved, context)
    images = IMAGES[lesson.batches.samples]
    before = answers(lesson, images)
    assert len(restored_in(lesson, tmp_path).places) == 2
    # The same to the rounding of float32, over three layers.
    np.testing.assert_allclose(answers(lesson, images, training=training), before, rtol=1e-4, atol=1e-4)


def test_statistics_are_of_samples_from_everywhere(
    saved: Saved, context: SamplesContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data may be sorted: the first samples are of the first class."""
    monkeypatch.setattr(normalizing, "SAMPLES", 16)
    images = IMAGES + np.linspace(-4, 4, SAMPLES, dtype=np.float32).reshape(-1, 1, 1, 1)
    lesson = lesson_of(RESIDUAL, saved, context, images=images)
    before = answers(lesson, images)
    restored_in(lesson, tmp_path)
    # Of one sixth of all samples: the first sixth alone lies four standard deviations away.
    assert np.abs(answers(lesson, images, training=True) - before).max() < 0.3 * before.std()


def test_filters_are_as_large_as_when_they_are_drawn(saved: Saved, context: SamplesContext, tmp_path: Path) -> None:
    weights = {**WEIGHTS, "w": WEIGHTS["w"] * np.array([0, 1, 30, 1], np.float32).reshape(4, 1, 1, 1)}
    lesson = lesson_of(RESIDUAL, saved, context, weights=weights)
    held = restored_in(lesson, tmp_path).lesson.student.tensors["w"]
    # From uniform numbers up to 1 / sqrt(n), of n = 2 x 3 x 3: their standard deviation is 1 / sqrt(3 n).
    size = held.detach().square().mean(dim=(1, 2, 3)).sqrt()
    np.testing.assert_allclose(size, np.array([0, 1, 1, 1]) / np.sqrt(3 * 18), rtol=1e-5)


def test_a_filter_too_small_for_float32_is_left_as_it_is(saved: Saved, context: SamplesContext, tmp_path: Path) -> None:
    weights = {**WEIGHTS, "v": WEIGHTS["v"] * np.array([1e-22, 1, 1, 1], np.float32).reshape(4, 1, 1, 1)}
    lesson = lesson_of(RESIDUAL, saved, context, weights=weights)
    before = answers(lesson)
    assert restored_in(lesson, tmp_path).weights == ["w"]
    np.testing.assert_allclose(answers(lesson, training=False), before, rtol=1e-4, atol=1e-4)


def test_it_is_folded_into_the_users_file(saved: Saved, context: SamplesContext, tmp_path: Path) -> None:
    lesson = lesson_of(RESIDUAL, saved, context)
    before = answers(lesson)
    restored = restored_in(lesson, tmp_path)
    tensors = restored.lesson.student.tensors
    added = tensors.keys() - lesson.student.tensors.keys()
    assert len(added) == 8
    assert {"w", "v"} <= tensors.keys()
    assert not {"b", "d"} & tensors.keys()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in sorted(added | {"w"}):
            tensors[name].mul_(torch.rand(tensors[name].shape, generator=generator) + 0.5)
    state = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    made = write_back(lesson.student.file, restored.folded(state), tmp_path / "made")
    old, new = onnx.load(lesson.student.file.path), onnx.load(made.path)
    assert old.graph.node == new.graph.node
    assert [one.name for one in old.graph.initializer] == [one.name for one in new.graph.initializer]
    (found,) = run_session(open_session(made.path, 1), {"x": IMAGES})
    np.testing.assert_allclose(found, answers(lesson), rtol=1e-4, atol=1e-4)
    assert np.abs(found - before).max() > 0.1


def test_what_is_delivered_answers_as_what_was_judged(saved: Saved, tmp_path: Path) -> None:
    """Through the pass: classes by the larger of two channels, which convolutions learn."""
    labels = (IMAGES.mean(axis=(2, 3))[:, 0] > IMAGES.mean(axis=(2, 3))[:, 1]).astype(np.int64)
    job = Job(tmp_path / "run", arrays={"x": IMAGES}, labels={"label": labels})
    arguments = {"epochs": 8, "batch_size": 20, "learning_rate": 0.01, "held_out": 0.3}
    result = job.run("fine_tune", saved(holding(RESIDUAL, **WEIGHTS)), **arguments)
    assert result.manifest["normalized"] == ["w", "v"]
    assert "Trained with BatchNormalization behind 2 of the convolutions, folded into them in the end." in result.notes
    held_out = split(np.arange(SAMPLES), 0.3, 0).held_out
    (scores,) = run_session(open_session(result.model.path, 1), {"x": IMAGES[held_out]})
    kept = result.manifest["history"][result.manifest["kept_epoch"] - 1]["held_out"]
    assert (scores.argmax(axis=1) == labels[held_out]).mean() == pytest.approx(kept["value"])
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(scores)), labels[held_out]]
    assert losses.mean() == pytest.approx(kept["loss"], rel=1e-3)
