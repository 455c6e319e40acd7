"""The loop: epochs of steps, judged, averaged, kept in checkpoints, and one of them handed back (`choosing`).

What is trained need not be a graph of the user's. `Trainer` asks for

- a `Subject`: a torch module that is called as `module(feed, names)`, feed and result by name, and the tensors that
  training moves, by name. Those that take gradients are optimized; others (running statistics) are averaged, kept and
  restored with them. `helpers` are optimized as well and are no part of the result: projections of features;
- an `Objective`: the names it reads, and its terms with their sum as `loss`, a scalar with a gradient;
- `Batches` to learn from, and a `Judge` that says how good the weights are in `eval()` mode;
- `Hooks`, called before epochs and steps, on gradients, and after steps: masks, growing sparsity, scales that freeze.

A step depends on the weights, the seed and its own number alone: Dropout and the order of samples are drawn by key, and
the learning rate is a function of the step. So training that went on from a checkpoint ends with the same bytes.
"""

import itertools
import math
import shutil
import time
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from app.jobs.report import TrainedEpoch
from app.recipes.training import TrainingOptions
from worker.engine.pass_contract import BudgetExhausted, PassContext
from worker.engine.training import checkpoints, optimizers
from worker.engine.training.averaging import Average
from worker.engine.training.batches import Batches
from worker.engine.training.choosing import Choice
from worker.engine.training.hooks import Hooks
from worker.engine.training.judging import Judge, Objective
from worker.engine.training.randomness import STATISTICS, STEP, seed_torch
from worker.engine.training.schedules import learning_rate_share

# A checkpoint is written behind every epoch, and within one that takes longer than this.
CHECKPOINT_SECONDS = 300.0
MOST_LEFT_OUT = 20
# A step usually keeps 0.9 of old statistics: so many on, nothing is left of before training, and after so many more
# with the same weights next to nothing of others.
REFRESHED_STEPS, REFRESHING_STEPS = 50, 20
TIME, PATIENCE, DIVERGED = "time", "patience", "diverged"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """What is trained; see above. `rates`: by name, a share of the learning rate other than 1. `undecayed`: names of
    those that do not decay even where they have the shape of a matrix.
    """

    module: Any
    tensors: Tensors
    helpers: Tensors = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    undecayed: Container[str] = frozenset()


@dataclass
class Standing:
    """Where training stands, as JSON has it. Epochs count from 1 in `history`; 0 is what was before training."""

    epoch: int = 0
    step: int = 0
    """Steps done of the epoch that is under way."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of its terms, over samples."""
    history: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0
    """Steps in a row that were, as their gradient was no number."""
    stopped: str | None = None


@dataclass(frozen=True)
class Trained:
    """The weights that are kept, on the CPU, by name: those of before where no epoch was better; and how it went."""

    state: Tensors
    standing: Standing
    choice: Choice
    resumed_at: int | None = None
    """Epochs that an earlier attempt had done."""

    @property
    def improved(self) -> bool:
        """Whether an epoch was better than what was before."""
        return self.choice.epoch > 0

    @property
    def judged(self) -> bool:
        """Whether an epoch ended with weights that may be kept."""
        return self.choice.judged > 0


class Trainer:
    """One training. `fingerprint` names it: a checkpoint of another is not gone on from."""

    def __init__(
        self,
        subject: Subject,
        objective: Objective,
        batches: Batches,
        judge: Judge,
        options: TrainingOptions,
        context: PassContext,
        fingerprint: str,
        hooks: Hooks | None = None,
    ) -> None:
        self.subject, self.objective, self.batches, self.judge = subject, objective, batches, judge
        self.options, self.context, self.fingerprint, self.hooks = options, context, fingerprint, hooks or Hooks()
        self.moved = {**subject.tensors, **subject.helpers}
        self.parameters = [tensor for tensor in self.moved.values() if tensor.requires_grad]
        self.optimizer = optimizers.build(options, self.moved, subject.rates, subject.undecayed)
        self.epochs = min(options.epochs, options.stop_after or options.epochs)
        self.standing, self.choice = Standing(), Choice()
        self.saved_at, self.saved = time.monotonic(), 0

    def run(self) -> Trained:
        """To be called within `randomness.repeatable`.

        Raises:
            BudgetExhausted: time is over before one epoch is done.

        """
        resumed = self._resume()
        longest = 0.0
        while self.standing.epoch < self.epochs and self.standing.stopped is None:
            left = self.context.seconds_left()
            if self.standing.epoch and left < longest:
                self.standing.stopped = TIME
                break
            started = time.monotonic()
            if self._epoch():
                self._judge()
                self._save()
            longest = max(longest, time.monotonic() - started)
        # Of an earlier attempt as well, whose checkpoint this one went on from.
        self.context.haste.cut_short |= self.standing.stopped == TIME
        return Trained(self.kept, self.standing, self.choice, resumed)

    def _resume(self) -> int | None:
        """The epochs done where training goes on; else it begins."""
        self.hooks.start(self.subject.tensors, self.batches.steps * self.options.epochs)
        self.average, self.kept = Average(self.subject.tensors, self.options.averaging), _copy(self.subject.tensors)
        found = self._last_checkpoint()
        if found is None:
            if self.hooks.settled():
                self.choice.begin(self.judge())
            return None
        tensors, facts = found
        self.standing = Standing(**facts["standing"])
        self.choice = Choice.restored(facts["choice"], _under("judged/", tensors))
        with torch.no_grad():
            for name, tensor in self.moved.items():
                tensor.copy_(tensors[f"weight/{name}"])
            for name, tensor in self.average.tensors.items():
                tensor.copy_(tensors[f"average/{name}"])
        self.kept = {name: tensors[f"kept/{name}"] for name in self.kept}
        optimizers.load_state(self.optimizer, _under("optimizer/", tensors))
        self.hooks.load_state(_under("hooks/", tensors))
        return self.standing.epoch

    def _last_checkpoint(self) -> tuple[Tensors, dict[str, Any]] | None:
        try:
            return checkpoints.read(self.context.checkpoints.last(), self.fingerprint)
        except checkpoints.Damaged as error:
            self.context.log(f"The checkpoint of an earlier attempt is damaged ({error}): training begins anew.")
            return None

    def _epoch(self) -> bool:
        """Go through the data once, from where it stands. False where it had to be left."""
        standing, steps = self.standing, self.batches.epoch(self.standing.epoch)
        if standing.step == 0:
            self.hooks.epoch(standing.epoch, self.options.epochs, self.subject.tensors)
        self.subject.module.train()
        for number in range(standing.step, len(steps)):
            if self._out_of_time():
                return False
            if not self._step(number, steps[number]):
                standing.stopped = DIVERGED
                return False
            standing.step = number + 1
            done = standing.epoch * len(steps) + standing.step
            self.context.progress(done / (self.epochs * len(steps)))
            if standing.step < len(steps) and time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                self._save()
        return True

    def _out_of_time(self) -> bool:
        if not self.context.lacks(0.0):
            return False
        if not self.standing.epoch:
            raise BudgetExhausted(
                "Time was over before the training data had been gone through once.",
                "Raise budget_seconds, give less training data, or a worker with a GPU.",
            )
        self.standing.stopped = TIME
        return True

    def _step(self, number: int, samples: np.ndarray) -> bool:
        """One step down the gradient of these samples; False, and nothing done, where the loss is no number."""
        standing, tensors = self.standing, self.subject.tensors
        total = standing.epoch * self.batches.steps + number
        self.hooks.step(total, tensors)
        share = learning_rate_share(total, self.batches.steps * self.options.epochs, self.options.warmup)
        optimizers.set_rate(self.optimizer, self.options.highest_rate * share)
        self.optimizer.zero_grad(set_to_none=True)
        sums = dict(standing.sums)
        for index, batch in enumerate(self.batches.calls(samples)):
            seed_torch(self.context.seed, STEP, standing.epoch, number, index)
            terms = self.objective(self.subject.module(batch.feed, self.objective.wanted), batch)
            (terms["loss"] * (len(batch.samples) / len(samples))).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.detach()) * len(batch.samples)
        if not math.isfinite(sums["loss"]):
            return False
        standing.sums = sums
        self.hooks.gradients(tensors)
        longest = math.inf if self.options.clip_norm is None else self.options.clip_norm
        if not math.isfinite(float(torch.nn.utils.clip_grad_norm_(self.parameters, longest))):
            # The root of 0 has no slope. One such step is left out; many in a row say that nothing can be learned.
            standing.left_out += 1
            return standing.left_out < MOST_LEFT_OUT
        standing.left_out = 0
        self.optimizer.step()
        self.hooks.constrain(tensors)
        self.average.update(tensors, total)
        if self.average.tensors:
            self.hooks.constrain(self.average.tensors)
        return True

    def _judge(self) -> None:
        """The epoch that ended: into the history, and kept where it is a good choice."""
        standing = self.standing
        with self.average.in_place_of(self.subject.tensors):
            self._refresh_statistics()
            judgement = self.judge()
            if self.hooks.settled() and self.choice.takes(judgement, standing.epoch + 1):
                self.kept = _copy(self.subject.tensors)
        means = {name: total / len(self.batches.samples) for name, total in standing.sums.items()}
        standing.epoch, standing.step, standing.sums = standing.epoch + 1, 0, {}
        standing.history.append({"epoch": standing.epoch, "training": means, "held_out": judgement.facts()})
        self.context.epoch(
            TrainedEpoch(
                number=standing.epoch,
                count=self.epochs,
                training=means,
                held_out_loss=judgement.loss,
                metric=judgement.metric,
                value=judgement.value,
            )
        )
        terms = ", ".join(f"{name} {value:.4g}" for name, value in means.items() if name != "loss")
        self.context.log(
            f"Epoch {standing.epoch} of {self.epochs}: training loss {means['loss']:.4g}"
            f"{f' ({terms})' if len(means) > 2 else ''}; held out: {judgement.in_words()}."
        )
        if self.options.patience is not None and self.choice.without_gain >= self.options.patience:
            standing.stopped = PATIENCE

    def _refresh_statistics(self) -> None:
        """Let running statistics see training data once more: after few steps they are still those of other weights."""
        running = any(not tensor.requires_grad for tensor in self.subject.tensors.values())
        if not running or (self.standing.epoch + 1) * self.batches.steps >= REFRESHED_STEPS:
            return
        self.subject.module.train()
        seed_torch(self.context.seed, STATISTICS, self.standing.epoch)
        order = itertools.cycle(self.batches.epoch(self.standing.epoch))
        with torch.no_grad():
            for samples in itertools.islice(order, REFRESHING_STEPS):
                for batch in self.batches.calls(samples):
                    self.subject.module(batch.feed, self.objective.wanted)

    def _save(self) -> None:
        tensors = {f"weight/{name}": one for name, one in self.moved.items()}
        tensors |= {f"average/{name}": one for name, one in self.average.tensors.items()}
        tensors |= {f"kept/{name}": one for name, one in self.kept.items()}
        tensors |= {f"optimizer/{name}": one for name, one in optimizers.state_of(self.optimizer).items()}
        tensors |= {f"hooks/{name}": one for name, one in self.hooks.state().items()}
        tensors |= {f"judged/{name}": one for name, one in self.choice.tensors().items()}
        facts = {
            "fingerprint": self.fingerprint,
            "standing": asdict(self.standing),
            "choice": self.choice.facts(),
        }
        folder = self.context.scratch / f"checkpoint-{self.saved}"
        try:
            checkpoints.write(folder, tensors, facts)
        except (OSError, SafetensorError) as error:
            # What was learned is in memory still: a full disk costs the checkpoint, not the training.
            shutil.rmtree(folder, ignore_errors=True)
            self.context.log(f"A checkpoint could not be written ({error}).")
        else:
            self.context.checkpoints.save(folder)
        self.saved_at, self.saved = time.monotonic(), self.saved + 1


def _copy(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
