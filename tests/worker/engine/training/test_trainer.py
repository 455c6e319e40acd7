"""The loop alone, on a module that is no user's graph: what another pass brings to it, and what it gets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.recipes.training import FineTune
from tests.worker.dying import Kept, Killed
from tests.worker.networks import normal
from worker.engine.feeds import Feeds
from worker.engine.pass_contract import BudgetExhausted, Checkpoints, NoCheckpoints, PassContext
from worker.engine.training import trainer as training
from worker.engine.training.batches import Batch, Batches, split
from worker.engine.training.hooks import Hooks
from worker.engine.training.judging import Judge
from worker.engine.training.randomness import repeatable
from worker.engine.training.trainer import Subject, Trained, Trainer

COUNT = 200
X = normal(COUNT, 6)
FEEDS = Feeds({"x": X}, {"x": "float32"}, frozenset(), COUNT)


class Line(nn.Module):
    """y = w x, with a scale of its own, dropout, and a running mean that takes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.zeros(2, 6)), nn.Parameter(torch.ones(()))
        self.mean = torch.zeros(2)
        self.looked = 0
        """Calls in training mode that nothing is learned from."""

    def forward(self, feed: Mapping[str, torch.Tensor], _wanted: list[str]) -> dict[str, torch.Tensor]:
        made = nn.functional.dropout(feed["x"], 0.1, self.training) @ self.weight.T * self.scale
        if self.training:
            self.looked += not torch.is_grad_enabled()
            self.mean.lerp_(made.detach().mean(dim=0), 0.1)
        return {"y": made}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight, "scale": self.scale, "mean": self.mean}


class Distance:
    """To twice the first two inputs."""

    wanted = ["y"]  # noqa: RUF012 - read only

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": (batch.rows(made["y"]) - 2 * batch.feed["x"][:, :2]).square().mean()}


@dataclass
class Watching(Hooks):
    """Notes what it is told, and allows weights to be kept from an epoch on."""

    settles: int = 0
    told: list[str] = field(default_factory=list)
    epochs: int = 0

    def start(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        self.told.append(f"start {steps}")

    def epoch(self, number: int, epochs: int, tensors: Mapping[str, torch.Tensor]) -> None:
        self.told.append(f"epoch {number} of {epochs}")
        self.epochs = number + 1

    def step(self, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
        self.told.append(f"step {number}")

    def constrain(self, tensors: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            tensors["scale"].fill_(1.0)

    def settled(self) -> bool:
        return self.epochs >= self.settles

    def state(self) -> dict[str, torch.Tensor]:
        return {"epochs": torch.tensor(self.epochs)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.epochs = int(state["epochs"])


def _train(
    scratch: Path, hooks: Hooks | None = None, checkpoints: Checkpoints | None = None, **arguments: Any
) -> tuple[Trained, Line, list[str]]:
    scratch.mkdir(parents=True)
    deadline, objective = arguments.pop("deadline", float("inf")), arguments.pop("objective", Distance())
    options = FineTune.model_validate(
        {"pass": "fine_tune", "epochs": 5, "batch_size": 32, "learning_rate": 0.05, "patience": None} | arguments
    )
    logs: list[str] = []
    context = PassContext(
        scratch, FEEDS, 0, 1, deadline=deadline, checkpoints=checkpoints or NoCheckpoints(), log=logs.append
    )
    parts, line, cpu = split(np.arange(COUNT), options.held_out, 0), Line(), torch.device("cpu")
    batches, held_out = (Batches(FEEDS, one, 32, 0, cpu) for one in (parts.training, parts.held_out))
    subject, judge = Subject(line, line.tensors(), rates={"scale": 0.1}), Judge(line, Distance(), held_out)
    with repeatable(threads=1):
        trained = Trainer(subject, objective, batches, judge, options, context, "this", hooks).run()
    return trained, line, logs


def _digest(trained: Trained) -> str:
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in trained.state.values())).hexdigest()


def test_a_module_of_any_kind_is_trained(tmp_path: Path) -> None:
    trained, _, logs = _train(tmp_path / "run", epochs=20)
    losses = [one["held_out"]["loss"] for one in trained.standing.history]
    # The line is there to be found; a hundredth of the 4 that it begins with is what dropout leaves.
    assert losses[-1] < 0.05 < trained.choice.start.loss  # type: ignore[union-attr]
    assert trained.choice.epoch > 5
    assert torch.allclose(trained.state["weight"][:, :2] * trained.state["scale"], 2 * torch.eye(2), atol=0.3)
    assert trained.state["mean"].abs().max() > 0
    assert len(logs) == 20
    assert logs[-1].startswith("Epoch 20 of 20: training loss ")


def test_hooks_are_told_of_epochs_and_steps_and_may_hold_weights(tmp_path: Path) -> None:
    hooks = Watching()
    trained, *_ = _train(tmp_path / "run", hooks, epochs=2)
    assert hooks.told[:4] == ["start 12", "epoch 0 of 2", "step 0", "step 1"]
    assert hooks.told[-7:] == ["epoch 1 of 2", *(f"step {number}" for number in range(6, 12))]
    assert float(trained.state["scale"]) == 1.0


@dataclass
class Norms(Hooks):
    """Notes how long the gradient is that each step went down."""

    found: list[float] = field(default_factory=list)

    def constrain(self, tensors: Mapping[str, torch.Tensor]) -> None:
        squares = [one.grad.square().sum() for one in tensors.values() if one.grad is not None]
        if squares:  # the average that is kept beside the weights has none
            self.found.append(float(torch.stack(squares).sum().sqrt()))


@pytest.mark.parametrize(("longest", "is_cut"), [(0.5, True), (None, False)], ids=["cut", "as-it-is"])
def test_gradients_are_cut_to_the_length_asked_for(longest: float | None, is_cut: bool, tmp_path: Path) -> None:
    """Of all parameters together: in one direction they stay."""
    hooks = Norms()
    _train(tmp_path / "run", hooks, epochs=1, clip_norm=longest)
    assert (max(hooks.found) <= 0.5 * 1.0001) is is_cut


def test_what_is_not_settled_is_not_kept(tmp_path: Path) -> None:
    trained, *_ = _train(tmp_path / "run", Watching(settles=4))
    assert trained.choice.start is None
    assert trained.choice.epoch >= 4


@pytest.mark.parametrize("averaging", [0.999, None], ids=["average", "last"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("every_step", [False, True], ids=["epochs", "steps"])
def test_training_that_goes_on_ends_with_the_same_bytes(
    optimizer: str, averaging: float | None, every_step: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"optimizer": optimizer, "averaging": averaging}
    whole, *_ = _train(tmp_path / "whole", Watching(settles=2), **arguments)
    if every_step:
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    # After three epochs, or in the middle of the third.
    first = Kept(tmp_path / "kept", after=15 if every_step else 3)
    with pytest.raises(Killed):
        _train(tmp_path / "first", Watching(settles=2), first, **arguments)
    again, *_ = _train(tmp_path / "again", Watching(settles=2), Kept(tmp_path / "kept"), **arguments)
    assert again.resumed_at == (2 if every_step else 3)
    assert _digest(again) == _digest(whole)
    assert again.standing.history == whole.standing.history


def test_a_run_that_had_ended_is_not_repeated(tmp_path: Path) -> None:
    whole, *_ = _train(tmp_path / "whole", checkpoints=Kept(tmp_path / "kept"))
    again, _, logs = _train(tmp_path / "again", checkpoints=Kept(tmp_path / "kept"))
    assert logs == []
    assert _digest(again) == _digest(whole)


@pytest.mark.parametrize("damage", ["state.json", "state.safetensors", "fingerprint", "lost", "cut short"])
def test_a_checkpoint_that_is_damaged_or_anothers_is_not_gone_on_from(damage: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    whole, *_ = _train(tmp_path / "whole", checkpoints=Kept(kept), epochs=2)
    facts = kept / "state.json"
    if damage == "fingerprint":
        facts.write_text(facts.read_text().replace('"this"', '"that"'))
    elif damage in {"lost", "cut short"}:
        tensors = load_file(kept / "state.safetensors")
        last = tensors.pop("kept/weight")
        save_file(tensors | ({} if damage == "lost" else {"kept/weight": last[:1]}), kept / "state.safetensors")
    else:
        (kept / damage).write_bytes((kept / damage).read_bytes()[:-100])
    again, _, logs = _train(tmp_path / "again", checkpoints=Kept(kept), epochs=2)
    assert again.resumed_at is None
    assert ("training begins anew" in logs[0]) is (damage != "fingerprint")
    assert _digest(again) == _digest(whole)


def test_it_stops_where_nothing_gets_better(tmp_path: Path) -> None:
    trained, *_ = _train(tmp_path / "run", epochs=1000, patience=3)
    standing = trained.standing
    assert (standing.stopped, standing.epoch - trained.choice.epoch) == ("patience", 3)


def test_weights_of_before_stay_where_training_diverges(tmp_path: Path) -> None:
    trained, line, _ = _train(
        tmp_path / "run", optimizer="sgd", learning_rate=100, clip_norm=None, warmup=0, epochs=50, averaging=None
    )
    assert trained.standing.stopped == "diverged"
    assert not trained.improved
    assert not np.isfinite(line.weight.detach().numpy()).all() or line.weight.abs().max() > 1e6
    assert torch.equal(trained.state["weight"], torch.zeros(2, 6))


@pytest.mark.parametrize(("epochs", "refreshed"), [pytest.param(1, 1, id="short"), pytest.param(10, 8, id="longer")])
def test_statistics_of_few_steps_see_data_once_more(epochs: int, refreshed: int, tmp_path: Path) -> None:
    """An epoch is six steps here: those of eight are fewer than it takes to forget what was before training."""
    trained, line, _ = _train(tmp_path / "run", epochs=epochs)
    assert trained.standing.epoch == epochs
    assert line.looked == refreshed * training.REFRESHING_STEPS


class Rooted(Distance):
    """With the root of 0 beside it, whose slope is no number, wherever one of these samples is learned from."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __call__(self, made: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        found = super().__call__(made, batch)
        rooted = bool((batch.samples < self.samples).any())
        return {"loss": found["loss"] + (0 * made["y"].sum()).sqrt()} if rooted else found


@pytest.mark.parametrize(
    ("samples", "stopped"), [pytest.param(1, None, id="now-and-then"), pytest.param(COUNT, "diverged", id="always")]
)
def test_a_gradient_that_is_no_number_is_left_out(samples: int, stopped: str | None, tmp_path: Path) -> None:
    trained, line, _ = _train(tmp_path / "run", objective=Rooted(samples), epochs=8)
    assert trained.standing.stopped == stopped
    assert trained.improved is (stopped is None)
    assert torch.isfinite(line.weight).all()


def test_no_time_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(BudgetExhausted, match="gone through once"):
        _train(tmp_path / "run", deadline=0.0)


def test_a_schedule_may_be_left_early_at_a_given_epoch(tmp_path: Path) -> None:
    whole, *_ = _train(tmp_path / "whole", epochs=6)
    left, *_ = _train(tmp_path / "left", epochs=6, stop_after=2)
    assert left.standing.history == whole.standing.history[:2]
    assert left.standing.stopped is None
