"""The best candidate so far, handed out while the search goes on: whatever ends the job, it is not lost."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from app.jobs.report import TrialReport
from app.recipes.auto import ObjectiveWeights
from worker.engine.search.proposals import Trial
from worker.runner.artifacts import candidate_stem, pack
from worker.runner.chain import Outcome
from worker.runner.contract import BEST_FOLDER, Best
from worker.runner.events import Events

# Larger than any gain, which is the logarithm of a few ratios.
UNSURE = 1_000.0
NOT_KEPT = "`{}` is the best so far and could not be set aside ({}): should the job end early, an earlier one is left."


@dataclass
class BestSoFar:
    """Better is what gains more than the original and all before, and holds the contract on the samples for choosing.

    What holds it by a hair takes the place of nothing that is likely to be accepted, and such a one its place, whatever
    it gains.
    """

    workdir: Path
    model_name: str
    weights: ObjectiveWeights
    events: Events
    _rank: float = field(default=-math.inf, init=False)
    _count: int = field(default=0, init=False)

    def consider(self, trial: Trial, outcome: Outcome, told: TrialReport) -> None:
        """Leave a copy for the supervisor to take, if it is better. A full disk costs that copy and nothing else."""
        gain = trial.ratios.gain(self.weights)
        rank = gain if trial.likely else gain - UNSURE
        if not trial.measured or not trial.holds or gain <= 0 or rank <= self._rank:
            return
        number = str(self._count)
        self._count += 1
        folder = self.workdir / BEST_FOLDER
        try:
            path, media_type = pack(outcome.model, folder, number)
        except OSError as error:
            for partial in folder.glob(f"{number}.*"):
                partial.unlink(missing_ok=True)
            self.events.log(NOT_KEPT.format(trial.name, error.strerror), "warning")
            return
        self._rank = rank
        stem = candidate_stem(self.model_name, trial.name, [step.pass_ for step in outcome.steps])
        self.events.best(
            Best(file=path.name, file_name=f"{stem}{path.suffix}", media_type=media_type, gain=rank, trial=told)
        )
