"""Training on with labels: what is learned, what stays, what is kept, and what cannot be trained."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from tests.worker import networks
from tests.worker.networks import normal
from tests.worker.passes.schooling import ROWS, Job, answers, save, top1
from worker.engine.faults import UserFault
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of
from worker.engine.pass_contract import BudgetExhausted

TRUTH = networks.normalized_perceptron()
# Noise two thirds as large as the weights: more than half of the answers are lost.
SPOILT = networks.shaken(TRUTH, 0.7)
LEARNING = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    truth = save(TRUTH, tmp_path_factory.mktemp("truth"))
    return np.asarray(answers(truth)["y"].argmax(axis=1))


def _constants(model: ModelFile) -> dict[str, np.ndarray]:
    return {name: numpy_helper.to_array(tensor) for name, tensor in constants_of(model.load().graph)}


def test_what_was_spoilt_is_learned_again(labels: np.ndarray, tmp_path: Path) -> None:
    model, job = save(SPOILT, tmp_path / "model"), Job(tmp_path / "run", labels={"label": labels})
    result = job.run("fine_tune", model, **LEARNING)
    assert result.modified
    assert top1(model, labels) < 0.5
    # The task was set by a network of this very size, and 360 samples tell nearly all of it.
    assert top1(result.model, labels) > 0.85
    assert job.phases == ["preparing", "training"]
    assert len(job.logs) == 20
    assert job.shares == sorted(job.shares)
    assert job.shares[-1] == 1.0
    words = " ".join(result.notes)
    assert "20 of 20 epochs of 12 steps over 360 samples (AdamW, learning rate 0.01)" in words
    assert "labels (weight 1: label for y by cross-entropy)" in words
    assert "5 weight tensors were trained." in words


def test_nothing_but_weights_moves_in_the_file(labels: np.ndarray, tmp_path: Path) -> None:
    proto = ModelProto()
    proto.CopyFrom(SPOILT)
    proto.metadata_props.add(key="author", value="somebody")
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(3), "unread"))
    model = save(proto, tmp_path / "model")
    result = Job(tmp_path / "run", labels={"label": labels}).run("fine_tune", model, **LEARNING)
    before, after = model.load(), result.model.load()
    changed = {
        old.name
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old.SerializeToString() != new.SerializeToString()
    }
    weights = {"first.weight", "bn.scale", "bn.bias", "bn.mean", "bn.var", "head.weight", "head.bias"}
    assert changed == weights
    for one in (before, after):
        del one.graph.initializer[:]
    assert before == after
    onnx.checker.check_model(result.model.path)


def test_the_history_and_the_split_are_in_the_manifest(labels: np.ndarray, tmp_path: Path) -> None:
    model = save(SPOILT, tmp_path / "model")
    manifest = Job(tmp_path / "run", labels={"label": labels}).run("fine_tune", model, epochs=2).manifest
    assert [one["epoch"] for one in manifest["history"]] == [1, 2]
    assert manifest["split"]["training"] + manifest["split"]["held_out"] == len(labels)
    assert manifest["options"]["learning_rate"] == 0.001
    assert manifest["options"]["weight_decay"] == 0.01
    assert manifest["labels"] == {"y": "label"}
    assert 0 < manifest["before_training"]["value"] < 1
    assert manifest["replay"]["stop_after"] is None


def test_frozen_weights_and_statistics_stay(labels: np.ndarray, tmp_path: Path) -> None:
    model = save(SPOILT, tmp_path / "model")
    result = Job(tmp_path / "run", labels={"label": labels}).run(
        "fine_tune", model, freeze=["first.weight", "no such"], freeze_statistics=True, **LEARNING
    )
    before, after = _constants(model), _constants(result.model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"bn.scale", "bn.bias", "head.weight", "head.bias"}
    assert "Not trained: 1 tensors (frozen by the recipe)." in result.notes
    assert "BatchNormalization keeps its running statistics: as asked." in result.notes
    assert any("no such" in note for note in result.notes)


@pytest.mark.parametrize("keep_zeros", [True, False])
def test_zeros_of_pruned_weights_stay_unless_they_may_not(keep_zeros: bool, labels: np.ndarray, tmp_path: Path) -> None:
    proto = ModelProto()
    proto.CopyFrom(SPOILT)
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head.weight")
    values = numpy_helper.to_array(head)
    pruned = np.where(np.abs(values) < np.median(np.abs(values)), 0, values)
    head.CopyFrom(numpy_helper.from_array(pruned, "head.weight"))
    model = save(proto, tmp_path / "model")
    result = Job(tmp_path / "run", labels={"label": labels}).run("fine_tune", model, keep_zeros=keep_zeros, **LEARNING)
    after = _constants(result.model)
    assert (after["head.weight"][pruned == 0] == 0).all() == keep_zeros
    assert (after["head.weight"] != 0)[pruned != 0].all()
    # A bias that begins at zero was not pruned.
    assert (after["head.bias"] != 0).all()
    assert ("64 weights in 1 tensors were zero and stayed so." in result.notes) == keep_zeros
    assert result.manifest["zeros_kept"] == (["head.weight"] if keep_zeros else [])


def test_a_regressor_learns_numbers(tmp_path: Path) -> None:
    truth = save(networks.perceptron(), tmp_path / "truth")
    model = save(networks.shaken(networks.perceptron(), 0.5), tmp_path / "model")
    wanted = answers(truth)["y"]
    result = Job(tmp_path / "run", labels={"y": wanted}).run("fine_tune", model, **LEARNING)
    errors = [np.square(answers(one)["y"] - wanted).mean() for one in (model, result.model)]
    assert errors[1] < 0.25 * errors[0]
    assert "loss" in result.notes[1]


CLASS_AND_NUMBER = (
    "network (float[N,8] x) => (float[N,4] kind, float[N] size) { a = Gemm(x, w) r = Relu(a) kind = Gemm(r, h) "
    "q = Gemm(r, k) one = Constant<value_ints=[1]>() size = Squeeze(q, one) }"
)


def test_classes_and_numbers_are_learned_together(tmp_path: Path) -> None:
    """Each output by the array of its name, by a loss of its own; classes as a table of floats has them."""
    proto = networks.prepared(CLASS_AND_NUMBER, w=normal(8, 16), h=normal(16, 4, seed=2), k=normal(16, 1, seed=3))
    truth, model = save(proto, tmp_path / "truth"), save(networks.shaken(proto, 0.5), tmp_path / "model")
    wanted = answers(truth)
    kinds = wanted["kind"].argmax(axis=1)
    labels = {"kind": kinds.astype(np.float32)[:, None], "size": wanted["size"]}
    result = Job(tmp_path / "run", labels=labels).run("fine_tune", model, **LEARNING)
    assert "kind for kind by cross-entropy, size for size by squared error" in result.notes[0]
    errors = [np.square(answers(one)["size"] - wanted["size"]).mean() for one in (model, result.model)]
    assert errors[1] < 0.25 * errors[0]
    # As with one output: 360 samples tell nearly all of a network of this very size.
    assert top1(model, kinds) < 0.75
    assert top1(result.model, kinds) > 0.85


@pytest.mark.parametrize(
    "form", ["scores", *(pytest.param(one, marks=pytest.mark.long) for one in ("probabilities", "one-hot"))]
)
def test_labels_of_yes_and_no_leave_the_scores_their_sign(form: str, tmp_path: Path) -> None:
    """Nearest in square to 0 and 1 are scores of which next to none is below 0."""
    outputs = 4 if form == "one-hot" else 2
    ends = [onnx.helper.make_node("Sigmoid", ["scores"], ["y"], "sigmoid")] if form == "probabilities" else []
    truth = networks.normalized_perceptron(classes=outputs)
    spoilt = networks.shaken(truth, 0.7)
    for proto in (truth, spoilt):
        proto.graph.node[-1].output[0] = "scores" if ends else "y"
        proto.graph.node.extend(ends)
    wanted = answers(save(truth, tmp_path / "truth"))["y"]
    threshold = 0.5 if ends else 0.0
    yes = np.eye(4)[wanted.argmax(axis=1)] if form == "one-hot" else wanted > threshold
    model = save(spoilt, tmp_path / "model")
    result = Job(tmp_path / "run", labels={"label": yes.astype(np.int64)}).run("fine_tune", model, **LEARNING)
    found = [answers(one)["y"] for one in (model, result.model)]
    if form == "one-hot":
        shares = [float((one.argmax(axis=1) == yes.argmax(axis=1)).mean()) for one in found]
    else:
        shares = [float(((one > threshold) == yes).mean()) for one in found]
    # As with numbers of classes: 360 samples tell nearly all of a network of this very size.
    assert shares[0] < 0.75
    assert shares[1] > 0.85
    assert f"label for y by {'cross' if form == 'one-hot' else 'binary cross'}-entropy" in result.notes[0]


def test_a_file_that_ends_in_a_softmax_learns_by_its_scores(labels: np.ndarray, tmp_path: Path) -> None:
    """Cross-entropy of probabilities, taken for scores, cannot tell a sure answer from a guess."""
    proto = ModelProto()
    proto.CopyFrom(SPOILT)
    proto.graph.node[-1].output[0] = "scores"
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["scores"], ["y"], "softmax"))
    with_softmax, without = save(proto, tmp_path / "with"), save(SPOILT, tmp_path / "without")
    results = [
        Job(tmp_path / f"run-{number}", labels={"label": labels}).run("fine_tune", model, epochs=2)
        for number, model in enumerate((with_softmax, without))
    ]
    trained = [_constants(result.model) for result in results]
    assert all(np.array_equal(trained[0][name], trained[1][name]) for name in trained[1])


def test_a_model_that_fixes_its_batch_is_trained_on_more(labels: np.ndarray, tmp_path: Path) -> None:
    proto = ModelProto()
    proto.CopyFrom(SPOILT)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    fixed, free = save(proto, tmp_path / "fixed"), save(SPOILT, tmp_path / "free")
    trained = [
        _constants(Job(tmp_path / f"run-{number}", labels={"label": labels}).run("fine_tune", one, epochs=1).model)
        for number, one in enumerate((fixed, free))
    ]
    assert all(np.array_equal(trained[0][name], trained[1][name]) for name in trained[1])


def test_whole_calls_are_trained_on_one_by_one(tmp_path: Path) -> None:
    """An LSTM whose batch is no first axis: each entry is a call of two sequences."""
    truth = save(networks.recurrent(), tmp_path / "truth")
    model = save(networks.shaken(networks.recurrent(), 0.5), tmp_path / "model")
    arrays = {"x": normal(40, 5, 2, 3)}
    wanted = np.stack([answers(truth, {"x": one})["y"] for one in arrays["x"]])
    result = Job(tmp_path / "run", arrays, {"y": wanted}).run("fine_tune", model, epochs=4, learning_rate=0.01)
    losses = [result.manifest["before_training"]["loss"], result.manifest["history"][-1]["held_out"]["loss"]]
    assert losses[1] < 0.5 * losses[0]
    assert any("trained on one by one" in note for note in result.notes)


def test_biases_of_both_directions_are_learned_and_do_not_decay(tmp_path: Path) -> None:
    """(2, 8 hidden): a matrix by its shape. Exporters fill its second half with zeros, which no pruning made."""
    forward, cell = networks.recurrent(), networks.recurrent().graph.node[0]
    cell.input.append("B")
    cell.attribute.append(onnx.helper.make_attribute("direction", "bidirectional"))
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in forward.graph.initializer}
    bias = np.zeros((2, 32), np.float32)
    bias[:, :16] = normal(2, 16)
    constants = {name: np.concatenate([one, one]) for name, one in given.items()} | {"B": bias}
    floats = onnx.TensorProto.FLOAT
    proto = networks.assemble([cell], {"x": (floats, [5, "N", 3])}, {"y": (floats, [5, 2, "N", 4])}, constants)
    model, arrays = save(proto, tmp_path / "model"), {"x": normal(40, 5, 2, 3)}
    # One step: behind it gradients differ as weights do.
    arguments = {"epochs": 1, "batch_size": 40, "averaging": None, "warmup": 0, "learning_rate": 0.05}
    made = [
        Job(tmp_path / f"run-{decay}", arrays, {"y": np.ones((40, 5, 2, 2, 4), np.float32)}).run(
            "fine_tune", model, weight_decay=decay, **arguments
        )
        for decay in (0, 1)
    ]
    found = [_constants(one.model) for one in made]
    assert made[0].manifest["zeros_kept"] == []
    assert (found[0]["B"] != 0).all()
    np.testing.assert_array_equal(found[0]["B"], found[1]["B"])
    assert not np.array_equal(found[0]["W"], found[1]["W"])


def test_what_does_not_get_better_is_left_as_it_was(labels: np.ndarray, tmp_path: Path) -> None:
    """All of it is right already: a smaller loss is no reason for other weights."""
    model = save(TRUTH, tmp_path / "model")
    result = Job(tmp_path / "run", labels={"label": labels}).run("fine_tune", model)
    assert not result.modified
    assert result.model == model
    assert any("those were kept" in note for note in result.notes)
    assert result.manifest["kept_epoch"] == 0


class Slow(Job):
    """Whoever reads the log of an epoch takes the rest of the time for it."""

    def log(self, message: str) -> None:
        super().log(message)
        time.sleep(max(0.0, self.deadline - time.monotonic()))


def test_out_of_time_the_best_so_far_is_kept(labels: np.ndarray, tmp_path: Path) -> None:
    model = save(SPOILT, tmp_path / "model")
    job = Slow(tmp_path / "run", labels={"label": labels}, deadline=time.monotonic() + 3)
    result = job.run("fine_tune", model, **LEARNING)
    assert result.modified
    assert "Training ended after epoch 1: the next epoch would not have fitted into the job's time." in result.notes
    assert result.manifest["replay"]["stop_after"] == 1
    again = Job(tmp_path / "again", labels={"label": labels}).run("fine_tune", model, **{**LEARNING, "stop_after": 1})
    assert again.model.sha256() == result.model.sha256()


def test_a_sample_that_is_no_number_is_left_out_and_named(labels: np.ndarray, tmp_path: Path) -> None:
    """It would make NaN of the loss and the running statistics of all that are fed with it."""
    rows = ROWS["x"].copy()
    rows[[0, 17], 3] = np.nan, np.inf
    job = Job(tmp_path / "run", {"x": rows}, {"label": labels})
    result = job.run("fine_tune", save(SPOILT, tmp_path / "model"), **LEARNING | {"epochs": 4})
    assert (
        "Left out of training and of judging: 2 of 400 samples, fed NaN or infinity (x at 0, 17, counted from 0)."
        in result.notes
    )
    assert result.modified
    assert [result.manifest["split"][part] for part in ("training", "held_out")] == [358, 40]
    assert None not in [one["held_out"]["loss"] for one in result.manifest["history"]]
    assert all(np.isfinite(values).all() for values in _constants(result.model).values())


def test_data_without_a_sample_that_is_a_number_is_refused(labels: np.ndarray, tmp_path: Path) -> None:
    rows = np.full_like(ROWS["x"], np.nan)
    with pytest.raises(UserFault, match="every sample of the training data is NaN or infinite, in x") as caught:
        Job(tmp_path / "run", {"x": rows}, {"label": labels}).run("fine_tune", save(SPOILT, tmp_path / "model"))
    assert caught.value.code == "too_few_samples"


def test_without_time_for_one_epoch_that_is_said(labels: np.ndarray, tmp_path: Path) -> None:
    job = Job(tmp_path / "run", labels={"label": labels}, deadline=time.monotonic())
    with pytest.raises(BudgetExhausted):
        job.run("fine_tune", save(SPOILT, tmp_path / "model"))


@dataclass
class Refusal:
    id: str
    code: str
    words: str
    model: ModelProto = field(default_factory=lambda: SPOILT)
    arrays: dict[str, np.ndarray] = field(default_factory=lambda: ROWS)
    labels: dict[str, np.ndarray] = field(default_factory=lambda: {"label": np.zeros(400, int)})
    arguments: dict[str, Any] = field(default_factory=dict)


EVERY_WEIGHT = ["first.weight", "bn.scale", "bn.bias", "head.weight", "head.bias"]
REFUSALS = [
    Refusal("no-labels", "labels_mismatch", "there are none", labels={}),
    Refusal("one-class-too-many", "labels_mismatch", "scores 4 classes", labels={"label": np.full(400, 4)}),
    Refusal("in-8-bits", "quantized_model", "computes in 8 bits", model=networks.quantized_product()),
    Refusal(
        "control-flow",
        "not_trainable",
        "If cannot be trained",
        networks.with_branches(),
        {"x": normal(8, 4), "flag": np.ones(8, bool)},
    ),
    Refusal("all-frozen", "nothing_to_train", "is frozen", arguments={"freeze": EVERY_WEIGHT}),
    Refusal("one-sample", "too_few_samples", "has 1 samples", arrays={"x": normal(1, 8)}),
    Refusal(
        "a-kind-of-no-output", "labels_mismatch", "names the output 'sum'", arguments={"kinds": {"sum": "numbers"}}
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_what_cannot_be_trained_is_refused_with_a_reason(case: Refusal, tmp_path: Path) -> None:
    job = Job(tmp_path / "run", case.arrays, case.labels)
    with pytest.raises(UserFault, match=case.words) as caught:
        job.run("fine_tune", save(case.model, tmp_path / "model"), **case.arguments)
    assert (caught.value.code, bool(caught.value.remedy)) == (case.code, True)


@pytest.mark.parametrize(
    ("samples", "batch_size"), [(8, 1), (2, 64), (4, 2)], ids=["batches of one", "one to learn from", "one left over"]
)
def test_statistics_stay_where_a_step_has_one_sample(
    samples: int, batch_size: int, labels: np.ndarray, tmp_path: Path
) -> None:
    """One sample has no variance: torch refuses to normalize a batch of it."""
    model = save(SPOILT, tmp_path / "model")
    job = Job(tmp_path / "run", {"x": ROWS["x"][:samples]}, {"label": labels[:samples]})
    result = job.run("fine_tune", model, epochs=1, batch_size=batch_size)
    assert "BatchNormalization keeps its running statistics: a call holds one sample." in result.notes


def test_a_loss_that_is_no_number_is_none_in_the_manifest(tmp_path: Path) -> None:
    truth, model = save(networks.perceptron(), tmp_path / "truth"), save(networks.perceptron(), tmp_path / "model")
    # One step an epoch, so that it is judged before it is known to diverge.
    reckless = {"optimizer": "sgd", "learning_rate": 100, "clip_norm": None, "averaging": None, "batch_size": 1000}
    job = Job(tmp_path / "run", labels={"y": answers(truth)["y"] + 1})
    manifest = job.run("fine_tune", model, epochs=20, **reckless).manifest
    assert None in [one["held_out"]["loss"] for one in manifest["history"]]
    json.dumps(manifest, allow_nan=False)
