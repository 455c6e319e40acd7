"""Weights set to zero while the rest is trained: W <- W * M after every step.

Where a share is asked for, it grows over the first half of the steps along a cubic (Zhu & Gupta, To prune, or not to
prune, https://arxiv.org/abs/1710.01878): what is gone by then had the time to be made up for by what is left. A
threshold and a pattern N:M leave no choice of a share: their zeros are there from the start.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.recipes.pruning import PruneUnstructured
from app.recipes.training import TeachingOptions
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import BudgetExhausted, PassContext
from worker.engine.pruning.places import Place
from worker.engine.pruning.selection import cuts_to_share, find_cuts, taken_by
from worker.engine.trainable.arrays import array_from, tensor_from
from worker.engine.training.account import finite, for_manifest, in_words, replayed
from worker.engine.training.judging import Judge, Judgement
from worker.engine.training.lesson import Lesson, plan_lesson
from worker.engine.training.masks import Masks
from worker.engine.training.randomness import repeatable
from worker.engine.training.schedules import cubic_sparsity
from worker.engine.training.student import prepare_student, training_data
from worker.engine.training.trainer import Trained

# Half of the steps for the way, half to settle; and so many times on the way the weights are ranked anew.
RAMP_SHARE, RANKINGS = 0.5, 20
REACHED, KEPT = "reached", "kept/"
NO_TIME = "No time was left to train: the weights were pruned and not trained."
UNFINISHED = (
    "Training ended before an epoch had been judged with as many zeros as were asked for: the weights were pruned and "
    "not trained."
)
WITHOUT = "Training did not make the pruned weights better on the held-out samples: they were pruned and not trained."


@dataclass(frozen=True)
class Sparse:
    """Constants of `file`, the student's, by name as training left them, the pruned among them; None: they are best
    pruned and left so.
    """

    file: ModelFile
    arrays: dict[str, np.ndarray] | None
    notes: list[str]
    manifest: dict[str, Any]


class Sparsity(Masks):
    """Masks that grow to what the recipe asks for. `zeros`: of weights that have some and keep them. `frozen`: weights
    of the module that are pruned and not trained.
    """

    def __init__(
        self,
        places: Sequence[Place],
        config: PruneUnstructured,
        zeros: Masks | None,
        frozen: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__({} if zeros is None else zeros.kept)
        self.places, self.config, self.ramp, self.reached = list(places), config, 0, False
        self.device = torch.device("cpu")
        self.zeros, self.frozen = dict(self.kept), dict(frozen)
        share = config.sparsity if config.percentile is None else config.percentile / 100
        self.share = share
        count = sum(place.values.size for place in places)
        self.first = sum(int((place.values == 0).sum()) for place in places) / max(1, count)

    def rule(self) -> Any:
        return self.config.model_dump(mode="json", by_alias=True)

    def start(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        self.ramp, self.device = int(RAMP_SHARE * steps), next(iter(tensors.values())).device
        if self.share is None:
            self.prune(tensors, None)
            self.reached = True

    def step(self, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
        if self.share is None or self.reached:
            return
        if number >= self.ramp:
            self.prune(tensors, self.share)
            self.reached = True
        elif number % max(1, self.ramp // RANKINGS) == 0:
            self.prune(tensors, cubic_sparsity(number, self.ramp, min(self.first, self.share), self.share))

    def prune(self, tensors: Mapping[str, torch.Tensor], share: float | None) -> None:
        """To this share, or as the rule says, of the weights as they are now."""
        self.device = next(iter(tensors.values())).device
        now = [
            dataclasses.replace(place, values=array_from(tensors[place.name])) if place.name in tensors else place
            for place in self.places
        ]
        cuts = find_cuts(now, self.config) if share is None else cuts_to_share(now, self.config, share)
        for place, taken in taken_by(cuts, now, self.config):
            kept = tensor_from(~taken & (place.values != 0)).to(self.device)
            self.kept[place.name] = kept & self.zeros[place.name] if place.name in self.zeros else kept
        self._prune_frozen()
        self.constrain(tensors)

    def _prune_frozen(self) -> None:
        """As they came and without what is gone: beside weights that move, one ranking takes others than the last."""
        with torch.no_grad():
            for place in self.places:
                if place.name in self.frozen:
                    self.frozen[place.name].copy_(tensor_from(place.values))
        self.constrain(self.frozen)

    def settled(self) -> bool:
        return self.reached

    def state(self) -> dict[str, torch.Tensor]:
        return {REACHED: torch.tensor(self.reached), **{f"{KEPT}{name}": mask for name, mask in self.kept.items()}}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.reached = bool(state[REACHED])
        kept = {name.removeprefix(KEPT): mask for name, mask in state.items() if name.startswith(KEPT)}
        self.kept = {name: mask.to(self.device) for name, mask in kept.items()}
        # Those that are trained come with their zeros; these begin anew.
        self._prune_frozen()


def train_sparse(model: ModelFile, places: Sequence[Place], config: PruneUnstructured, context: PassContext) -> Sparse:
    """As `config.training` says, from the original, and from labels where there are any.

    Raises:
        UserFault: as `prepare_student` and `plan_lesson`.

    """
    options = config.training or TeachingOptions()
    with repeatable(context.threads):
        student = prepare_student(model, training_data(context), options, context)
        try:
            lesson = plan_lesson(student, options, context, context.original or model)
            pruned, held = {place.name for place in places}, student.module.held()
            frozen = {name: held[name] for name in sorted(pruned & (held.keys() - student.tensors.keys()))}
            hooks = Sparsity(places, config, lesson.masks, frozen)
            at_once = _judged_at_once(hooks, student.tensors, lesson.judge)
            trained = lesson.run(context, hooks)
        except BudgetExhausted:
            return Sparse(model, None, [NO_TIME], {})
    return _outcome(lesson, trained, hooks, at_once)


def _judged_at_once(hooks: Sparsity, tensors: Mapping[str, torch.Tensor], judge: Judge) -> Judgement:
    """Of the weights pruned and not trained; they and the hooks are afterwards as they were."""
    every = {**hooks.frozen, **tensors}
    held, kept = {name: tensor.detach().clone() for name, tensor in every.items()}, dict(hooks.kept)
    hooks.prune(tensors, None)
    judgement = judge()
    with torch.no_grad():
        for name, tensor in every.items():
            tensor.copy_(held[name])
    hooks.kept = kept
    return judgement


def _outcome(lesson: Lesson, trained: Trained, hooks: Sparsity, at_once: Judgement) -> Sparse:
    manifest = {**for_manifest(lesson, trained), "pruned_at_once": finite(at_once.facts())}
    manifest["replay"] = replayed(lesson, trained)
    notes = in_words(lesson, trained)
    kept = trained.choice.kept
    if not trained.judged:
        return Sparse(lesson.student.file, None, [*notes, UNFINISHED], manifest)
    if not trained.improved or kept is None or not kept.improves_on(at_once):
        return Sparse(lesson.student.file, None, [*notes, WITHOUT], manifest)
    notes.append(f"Pruned and not trained the held-out samples would have given {at_once.in_words()}.")
    arrays = {name: array_from(tensor) for name, tensor in trained.state.items()}
    for place in hooks.places:  # those that are frozen lose their zeros as well
        if place.name not in lesson.student.tensors:
            arrays[place.name] = np.where(array_from(hooks.kept[place.name]), place.values, np.float32(0))
    return Sparse(lesson.student.file, arrays, notes, manifest)
