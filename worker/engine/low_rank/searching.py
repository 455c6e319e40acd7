"""The most that may be factored while the outputs keep what they must: files are built and judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from worker.engine.fidelity import Answers, Fidelity, Floor
from worker.engine.low_rank.choosing import Bid, select
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.plan import Plan
from worker.engine.low_rank.refitting import refit_last
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

# Noise adds up only roughly: the budget is raised or lowered by this until it fits, then halved until it is this close.
STEP, CLOSE, MOST_TRIALS = 4.0, 1.3, 10
EVERYTHING = float("inf")


@dataclass(frozen=True)
class Trial:
    """What was chosen as a file, and what that keeps. `last`: its last factors where they were fitted anew."""

    chosen: Mapping[str, Shape]
    model: ModelFile
    fidelity: Fidelity
    cost: float = 0.0
    last: Mapping[str, np.ndarray] | None = None

    def remove(self) -> None:
        for path in self.model.files():
            path.unlink()


@dataclass
class Workbench:
    """What building and judging a choice takes. `fitted` samples are fitted to; 0: last factors stay as they are."""

    plan: Plan
    context: PassContext
    answers: Answers
    """Of the model as it is."""
    fitted: int
    trials: int = field(default=0)

    def build(self, chosen: Mapping[str, Shape], cost: float = 0.0) -> Trial:
        """The choice as a file; fitted anew where the outputs keep more then.

        Raises:
            ModelFails: a call fails.

        """
        plain = self.judge(chosen, None, cost)
        if not self.fitted:
            return plain
        anew = self.judge(chosen, refit_last(self.plan, plain.model, chosen, self.context, self.fitted), cost)
        better, worse = (anew, plain) if anew.fidelity.sqnr_db > plain.fidelity.sqnr_db else (plain, anew)
        worse.remove()
        return better

    def judge(self, chosen: Mapping[str, Shape], last: Mapping[str, np.ndarray] | None, cost: float) -> Trial:
        """One file, as it is asked for."""
        self.trials += 1
        file = self.plan.write(chosen, self.context.scratch / f"trial-{self.trials}", last)
        return Trial(chosen, file, self.answers.fidelity(file), cost, last)


def search(
    bids: Mapping[str, Bid], floor: Floor, bench: Workbench, start: float, reserve_seconds: float
) -> Trial | None:
    """The cheapest choice found that holds the floor; None where none does that factors anything.

    Budgets are tried from `start` on, and none once less than `reserve_seconds` are left.

    Raises:
        ModelFails: a call fails.

    """
    tried: dict[tuple[tuple[str, Shape], ...], bool] = {}
    best: Trial | None = None
    low, high, budget = None, None, start
    enough = sum(offer.noise for offer in select(bids, EVERYTHING).values())
    for _ in range(MOST_TRIALS):
        chosen = select(bids, min(budget, enough))
        key = tuple((name, offer.option.shape) for name, offer in chosen.items())
        if key and key not in tried:
            if bench.context.lacks(reserve_seconds):
                break
            cost = sum(chosen[name].cost if name in chosen else bid.cost for name, bid in bids.items())
            trial = bench.build(dict(key), cost)
            tried[key] = trial.fidelity.holds(floor)
            best = _better(best, trial, tried[key])
        # Where nothing is factored nothing is lost.
        if not key or tried[key]:
            low = budget
            if budget >= enough:
                break
        else:
            high = min(budget, enough)
        if low is not None and high is not None and high < CLOSE * low:
            break
        budget = _next(low, high, budget)
    return best


def _better(best: Trial | None, trial: Trial, holds: bool) -> Trial | None:
    """The cheaper of two; the file of the other goes."""
    if not holds or (best is not None and best.cost <= trial.cost):
        trial.remove()
        return best
    if best is not None:
        best.remove()
    return trial


def _next(low: float | None, high: float | None, budget: float) -> float:
    """Up while budgets hold, down while they do not, then between the last that did and the first that did not."""
    if low is not None and high is not None:
        return float((low * high) ** 0.5)
    return budget * STEP if high is None else min(budget, high) / STEP
