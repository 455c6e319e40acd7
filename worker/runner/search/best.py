"""The best candidate so far, handed out while the search goes on: whatever ends the job, it is not lost."""

from dataclasses import dataclass, field
from pathlib import Path

from app.jobs.report import TrialReport
from app.recipes.auto import ObjectiveWeights
from worker.engine.search.proposals import Trial
from worker.runner.artifacts import candidate_stem, pack
from worker.runner.chain import Outcome
from worker.runner.contract import BEST_FOLDER, Best
from worker.runner.events import Events

NOT_KEPT = "`{}` is the best so far and could not be set aside ({}): should the job end early, an earlier one is left."


@dataclass
class BestSoFar:
    """Better is what is likely to be accepted and gains more than the original and all before.

    What holds the contract by a hair on the samples for choosing would take the place of what holds it safely.
    """

    workdir: Path
    model_name: str
    weights: ObjectiveWeights
    events: Events
    _gain: float = field(default=0.0, init=False)
    _count: int = field(default=0, init=False)

    def consider(self, trial: Trial, outcome: Outcome, told: TrialReport) -> None:
        """Leave a copy for the supervisor to take, if it is better. A full disk costs that copy and nothing else."""
        gain = trial.ratios.gain(self.weights)
        if not trial.measured or not trial.likely or gain <= self._gain:
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
        self._gain = gain
        stem = candidate_stem(self.model_name, trial.name, [step.pass_ for step in outcome.steps])
        self.events.best(
            Best(file=path.name, file_name=f"{stem}{path.suffix}", media_type=media_type, gain=gain, trial=told)
        )
