"""Building candidates: what two recipes begin with is made once, and not again where an earlier search made it."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.recipes.catalogue import AnyPass
from worker.engine.faults import UserFault
from worker.engine.pass_contract import PassContext
from worker.engine.search.proposals import key_of
from worker.runner.chain import Circumstances, Outcome, run_pass
from worker.runner.pacing import Pacing
from worker.runner.search.stock import Stock

# Of a trial, the share that is building; the rest is measuring.
BUILT = 0.7


class NothingChanged(UserFault):
    code, title = "nothing_changed", "A pass found nothing to do"


@dataclass
class Workshop:
    """Keeps every candidate that was built until the job is over; each pass has a folder of its own."""

    circumstances: Circumstances
    stock: Stock
    _built: dict[str, Outcome] = field(default_factory=dict)
    _candidates: set[str] = field(default_factory=set)
    """Whole recipes that were built."""
    _count: int = 0

    def build(self, recipe: Sequence[AnyPass], seconds: float) -> Outcome:
        """
        Raises:
            NothingChanged: a pass left the model as it was, and not the last of several, or these alone were tried
                already: nothing new came of it.
            UserFault: a pass cannot do its work, or not in the time.

        """
        deadline = time.monotonic() + seconds
        done = next((n for n in range(len(recipe), 0, -1) if key_of(recipe[:n]) in self._built), 0)
        outcome = self._built[key_of(recipe[:done])].branch() if done else Outcome(self.circumstances.original)
        for number in range(done, len(recipe)):
            config = recipe[number]
            name = str(config.pass_)
            context = self._context(name, deadline, (number - done) / (len(recipe) - done))
            if not self.stock.take_step(config, outcome, context.scratch):
                new = number + 1 == len(recipe) and key_of(recipe[:number]) not in self._candidates
                self._make(name, config, outcome, context, idle_allowed=new)
            self._built[key_of(recipe[: number + 1])] = outcome.branch()
        self._candidates.add(key_of(recipe))
        return outcome

    def _make(self, name: str, config: AnyPass, outcome: Outcome, context: PassContext, *, idle_allowed: bool) -> None:
        """A last pass that finds nothing to do spoils nothing: what those before it made is a candidate as it is."""
        given = outcome.model
        run_pass(name, config, outcome, context)
        if not outcome.steps[-1].modified and not (idle_allowed and outcome.modified):
            notes = outcome.steps[-1].notes
            raise NothingChanged(f"`{name}` changed nothing{': ' + notes[-1] if notes else '.'}", None)
        _tidy(context.scratch, outcome)
        # With more time a hurried pass makes another file: the next search shall.
        if not context.haste.cut_short and context.seconds_left() > 0:
            self.stock.keep_step(config, given, outcome)

    def _context(self, name: str, deadline: float, done: float) -> PassContext:
        self._count += 1
        context = self.circumstances.context(self._count, name)
        pacing: Pacing = self.circumstances.pacing
        return replace(
            context,
            deadline=deadline,
            progress=lambda share: pacing.at(BUILT * (done + (1 - done) * share)),
        )


def _tidy(scratch: Path, outcome: Outcome) -> None:
    """What a pass made on its way is gone; candidates stay, and there may be many."""
    kept = [path.resolve() for path in (*outcome.model.files(), *outcome.extras.values())]
    for path in scratch.iterdir():
        if not any(one.is_relative_to(path.resolve()) for one in kept):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
