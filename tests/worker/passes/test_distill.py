"""A student that learns from a teacher: its original, another model, with labels and without."""

from pathlib import Path
from uuid import UUID

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.worker import networks
from tests.worker.networks import normal
from tests.worker.passes.schooling import ROWS, Job, answers, save, top1
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile

TRUTH = networks.normalized_perceptron()
SPOILT = networks.shaken(TRUTH, 0.7)
LEARNING = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01}
OTHER = UUID(int=7)
IMAGES = {"image": normal(200, 3, 16, 16)}


def _truth(tmp_path: Path) -> tuple[ModelFile, np.ndarray]:
    truth = save(TRUTH, tmp_path / "truth")
    return truth, answers(truth)["y"].argmax(axis=1)


def _with_softmax(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.node[-1].output[0] = "scores"
    made.graph.node.append(helper.make_node("Softmax", ["scores"], ["y"], "softmax"))
    return made


@pytest.mark.parametrize("labelled", [False, True], ids=["without-labels", "with-labels"])
def test_a_student_comes_to_answer_as_its_original(labelled: bool, tmp_path: Path) -> None:
    truth, labels = _truth(tmp_path)
    model = save(SPOILT, tmp_path / "model")
    job = Job(tmp_path / "run", labels={"label": labels} if labelled else {}, original=truth)
    result = job.run("distill", model, **LEARNING)
    assert top1(model, labels) < 0.5
    # As with labels alone.
    assert top1(result.model, labels) > 0.85
    judged = result.manifest["history"][-1]["held_out"]
    assert judged["metric"] == ("top1" if labelled else "agreement")
    assert set(result.manifest["history"][0]["training"]) == {"soft", "loss"} | ({"hard"} if labelled else set())
    assert any(note.startswith("The teacher was asked once") for note in result.notes)


def test_labels_alone_are_learned_where_the_teacher_has_no_weight(tmp_path: Path) -> None:
    truth, labels = _truth(tmp_path)
    model = save(SPOILT, tmp_path / "model")
    job = Job(tmp_path / "run", labels={"label": labels}, original=truth)
    result = job.run("distill", model, **LEARNING, alpha=0, gamma=1)
    # As `fine_tune` does.
    assert top1(result.model, labels) > 0.85
    assert set(result.manifest["history"][0]["training"]) == {"hard", "loss"}


def test_a_teacher_may_give_probabilities_and_the_student_too(tmp_path: Path) -> None:
    """Both are read as scores: every pairing trains alike."""
    teachers = [save(model, tmp_path / f"t{number}") for number, model in enumerate((TRUTH, _with_softmax(TRUTH)))]
    students = [save(model, tmp_path / f"s{number}") for number, model in enumerate((SPOILT, _with_softmax(SPOILT)))]
    losses = {
        (first, second): Job(tmp_path / f"run-{first}{second}", original=teachers[first])
        .run("distill", students[second], epochs=1, kinds={"y": "classes"})
        .manifest["before_training"]["loss"]
        for first in (0, 1)
        for second in (0, 1)
    }
    assert all(loss == pytest.approx(losses[0, 0], rel=1e-3) for loss in losses.values())


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    model = save(networks.perceptron(), tmp_path / "model")
    result = Job(tmp_path / "run").run("distill", model, epochs=1)
    assert not result.modified
    assert result.model == model
    assert result.manifest["before_training"]["loss"] < 1e-5


def test_outputs_that_are_numbers_are_learned_as_numbers(tmp_path: Path) -> None:
    """Two inputs, two outputs; the softmax of a row says nothing of a shift that all of it has."""
    arrays = {"a": normal(300, 8), "b": normal(300, 8, seed=1)}
    truth = save(networks.two_inputs(), tmp_path / "truth")
    model = save(networks.shaken(networks.two_inputs(), 0.5), tmp_path / "model")
    job = Job(tmp_path / "run", arrays, original=truth)
    result = job.run("distill", model, kinds={"sum": "numbers"}, **LEARNING)
    wanted, before, after = (answers(one, arrays) for one in (truth, model, result.model))
    for name in ("sum", "gate"):
        errors = [np.square(found[name] - wanted[name]).mean() for found in (before, after)]
        assert errors[1] < 0.1 * errors[0], name
    assert "sum as numbers, gate as classes and as numbers" in result.notes[0]


@pytest.mark.parametrize(
    "beta", [pytest.param(0.0, marks=pytest.mark.long, id="outputs"), pytest.param(1.0, id="features")]
)
def test_answers_of_zero_are_learned_one_sample_a_call(beta: float, tmp_path: Path) -> None:
    """As a share of their own square they would be an infinite loss, and end training at its first step."""
    text = "g (float[N,8] x) => (float[N,4] y) { p = Gemm(x, w, b) a = Relu(p) m = Gemm(a, v) y = Relu(m) }"
    proto = networks.prepared(text, w=normal(8, 4), b=np.full(4, -3, np.float32), v=np.eye(4, dtype=np.float32))
    truth, model = save(proto, tmp_path / "truth"), save(networks.shaken(proto, 0.5), tmp_path / "model")
    wanted, before = (answers(one)["y"] for one in (truth, model))
    silent = (wanted == 0).all(axis=1)
    assert silent.any()
    assert before[silent].any()
    calls = {"x": ROWS["x"][:60, None]}
    arguments = {**LEARNING, "epochs": 10, "beta": beta, "kinds": {"y": "numbers"}}
    result = Job(tmp_path / "run", calls, original=truth).run("distill", model, **arguments)
    assert result.manifest["stopped"] is None
    errors = [np.square(answers(one)["y"] - wanted).mean() for one in (model, result.model)]
    # It has the form of its teacher; of 60 samples in ten epochs it learns some.
    assert errors[1] < 0.7 * errors[0]


def test_what_could_be_either_is_learned_as_both(tmp_path: Path) -> None:
    proto = ModelProto()
    proto.CopyFrom(TRUTH)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 1, np.float32), "head.bias"))
    truth, model = save(TRUTH, tmp_path / "truth"), save(proto, tmp_path / "model")
    result = Job(tmp_path / "run", original=truth).run("distill", model, **LEARNING)
    errors = [np.square(answers(one)["y"] - answers(truth)["y"]).mean() for one in (model, result.model)]
    assert errors[0] == pytest.approx(1)
    assert errors[1] < 0.1


@pytest.mark.parametrize(
    "beta", [pytest.param(0.0, marks=pytest.mark.long, id="outputs"), pytest.param(1.0, id="features")]
)
def test_features_of_the_same_name_need_no_projection(beta: float, tmp_path: Path) -> None:
    truth = save(networks.convnet(), tmp_path / "truth")
    model = save(networks.shaken(networks.convnet(), 0.5), tmp_path / "model")
    result = Job(tmp_path / "run", IMAGES, original=truth).run("distill", model, beta=beta, **LEARNING)
    assert set(result.manifest["features"].items()) == (
        {("stem", "stem"), ("relu", "relu"), ("deep", "deep"), ("sum", "sum")} if beta else set()
    )
    history = result.manifest["history"]
    assert ("features" in history[0]["training"]) == bool(beta)
    if beta:
        assert history[-1]["training"]["features"] < 0.5 * history[0]["training"]["features"]
        assert "by projection" not in result.notes[0]


def test_a_narrower_convolution_of_sequences_is_taught_what_it_computes(tmp_path: Path) -> None:
    text = """g (float[N,3,16] x) => (float[N,3,16] y) {
        c = Conv<kernel_shape=[3], pads=[1,1]>(x, w) r = Relu(c) y = Conv<kernel_shape=[3], pads=[1,1]>(r, v) }"""
    wide, narrow = (
        networks.prepared(text, w=normal(width, 3, 3) / 3, v=normal(3, width, 3, seed=1) / 4) for width in (8, 5)
    )
    truth, model = save(wide, tmp_path / "truth"), save(narrow, tmp_path / "model")
    job = Job(tmp_path / "run", {"x": normal(60, 3, 16)}, original=truth)
    result = job.run("distill", model, beta=1.0, epochs=1)
    assert result.manifest["features"] == {"c": "c", "r": "r"}
    assert "2 by projection" in result.notes[0]


def test_a_student_of_another_architecture_is_trained_and_delivered(tmp_path: Path) -> None:
    truth, labels = _truth(tmp_path)
    # Twelve hidden units where the teacher has 32, and none of its names but the output's.
    student = save(networks.perceptron(seed=3, width=12), tmp_path / "student")
    model = save(SPOILT, tmp_path / "model")
    job = Job(tmp_path / "run", original=truth, others={str(OTHER): student})
    result = job.run("distill", model, student=str(OTHER), beta=0.1, **LEARNING)
    assert result.modified
    assert set(answers(result.model)) == {"y"}
    assert len(result.model.structure().graph.node) == 4
    # It starts from nothing, with a third of the teacher's width.
    assert top1(student, labels) < 0.3
    assert top1(result.model, labels) > 0.6
    assert result.manifest["features"]
    assert "by projection" in result.notes[0]
    assert result.manifest["student_sha256"] == student.sha256()


def test_a_student_that_learned_nothing_is_delivered_all_the_same(tmp_path: Path) -> None:
    truth, _ = _truth(tmp_path)
    job = Job(tmp_path / "run", original=truth, others={str(OTHER): truth})
    result = job.run("distill", save(SPOILT, tmp_path / "model"), student=str(OTHER), epochs=1)
    assert result.modified
    assert result.model.sha256() == truth.sha256()
    assert result.model.path.is_relative_to(tmp_path / "run")


def test_a_weight_of_zeros_is_learned_where_the_student_was_uploaded_so(tmp_path: Path) -> None:
    """Nothing pruned it, though the job's model holds other numbers under the same name."""
    truth, labels = _truth(tmp_path)
    proto = ModelProto()
    proto.CopyFrom(TRUTH)
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(head.dims), np.float32), head.name))
    student = save(proto, tmp_path / "student")
    job = Job(tmp_path / "run", original=truth, others={str(OTHER): student})
    result = job.run("distill", truth, student=str(OTHER), **LEARNING)
    assert top1(student, labels) < 0.5
    assert top1(result.model, labels) > 0.85


def test_a_teacher_need_not_be_trainable(tmp_path: Path) -> None:
    """One in 8 bits has no gradient, and none is asked for."""
    teacher = save(networks.quantized_product(), tmp_path / "teacher")
    model = save(networks.perceptron(), tmp_path / "model")
    job = Job(tmp_path / "run", others={str(OTHER): teacher})
    result = job.run("distill", model, teacher=str(OTHER), kinds={"y": "numbers"}, **LEARNING)
    losses = [result.manifest["before_training"]["loss"], result.manifest["history"][-1]["held_out"]["loss"]]
    assert losses[1] < 0.2 * losses[0]
    assert result.manifest["teacher_sha256"] == teacher.sha256()


def test_a_teacher_is_not_asked_about_samples_that_are_left_out(tmp_path: Path) -> None:
    """Infinity as a place in a table fails its call."""
    text = """g (float[N,8] x) => (float[N,4] y) {
        a = Abs(x) k = Cast<to = 7>(a) t = Gather(table, k) m = ReduceMean<axes = [1], keepdims = 0>(t)
        p = MatMul(m, w) y = Relu(p) }"""
    teacher = save(networks.prepared(text, table=normal(32, 4), w=normal(4, 4)), tmp_path / "teacher")
    rows = normal(16, 8)
    rows[1, 3] = np.inf
    job = Job(tmp_path / "run", {"x": rows}, others={str(OTHER): teacher})
    result = job.run("distill", save(SPOILT, tmp_path / "model"), teacher=str(OTHER), epochs=2, beta=0.5)
    assert any(note.startswith("The teacher was asked once, before training") for note in result.notes)


def _wider(classes: int) -> ModelProto:
    return networks.normalized_perceptron(classes=classes)


def _named(name: str) -> ModelProto:
    text = f"g (float[N,8] x) => (float[N,4] {name}, float[N,8] rest) {{ {name} = MatMul(x, w) rest = Relu(x) }}"
    return networks.prepared(text, w=normal(8, 4))


@pytest.mark.parametrize(
    ("teacher", "arguments", "code", "words"),
    [
        (_wider(5), {}, "answers_differ", r"\[\d+, 5\] where the student answers \[\d+, 4\]"),
        (_named("z"), {}, "answers_differ", "outputs are z, rest"),
        (networks.two_inputs(), {}, "data_mismatch", "`a`"),
        (TRUTH, {"beta": 1.0, "features": {"bn": "nothing"}}, "no_such_feature", "'nothing'"),
        (TRUTH, {"gamma": 1.0}, "labels_mismatch", "there are none"),
        (TRUTH, {"alpha": 0.0}, "nothing_to_learn", "no labels fit an output: nothing is left to learn"),
        (_named("y"), {"alpha": 0.0, "beta": 1.0}, "nothing_to_learn", "no inner tensors of one name or place"),
    ],
    ids=[
        "more-classes",
        "other-outputs",
        "other-inputs",
        "no-such-feature",
        "labels-that-are-not-there",
        "no-term-at-all",
        "no-feature-that-fits",
    ],
)
def test_a_pair_that_cannot_learn_from_each_other_is_refused(
    teacher: ModelProto, arguments: dict[str, object], code: str, words: str, tmp_path: Path
) -> None:
    job = Job(tmp_path / "run", ROWS, original=save(teacher, tmp_path / "teacher"))
    with pytest.raises(UserFault, match=words) as caught:
        job.run("distill", save(SPOILT, tmp_path / "model"), **arguments)
    assert caught.value.code == code
    assert caught.value.remedy


def test_a_model_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=str(OTHER)) as caught:
        Job(tmp_path / "run").run("distill", save(SPOILT, tmp_path / "model"), teacher=str(OTHER))
    assert caught.value.code == "no_such_model"


def test_pixels_are_classified_pixel_by_pixel(tmp_path: Path) -> None:
    text = """g (float[N,3,8,8] image) => (float[N,4,8,8] map) {
        p = Conv<pads=[1,1,1,1]>(image, w) r = Relu(p) map = Conv(r, v) }"""
    proto = networks.prepared(text, w=normal(8, 3, 3, 3) / 5, v=normal(4, 8, 1, 1) / 3)
    assert proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    truth, model = save(proto, tmp_path / "truth"), save(networks.shaken(proto, 1.0), tmp_path / "model")
    arrays = {"image": normal(60, 3, 8, 8)}
    labels = answers(truth, arrays)["map"].argmax(axis=1)
    result = Job(tmp_path / "run", arrays, {"label": labels}, original=truth).run(
        "distill", model, **{**LEARNING, "batch_size": 8}
    )
    before, after = ((answers(one, arrays)["map"].argmax(axis=1) == labels).mean() for one in (model, result.model))
    assert after > 0.85 > before
    assert "map as classes" in result.notes[0]
