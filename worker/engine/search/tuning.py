"""What is left to a sampler: how int8 ranges and weights are chosen, where the defaults did not hold or can be beaten.

Optuna's tree-structured Parzen estimator (J. Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS
2011) proposes; trials that break the contract are worse than any that hold, by how far they break it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.recipes.auto import ObjectiveWeights
from app.recipes.catalogue import AnyPass
from app.recipes.quantization import QuantizeStatic
from worker.engine.search.ground import Ground
from worker.engine.search.proposals import Proposal, Ratios, Trial, find, key_of

if TYPE_CHECKING:
    import optuna

MOST_SAMPLES = 8
# Without a better one in so many, the sampler has nothing more to say.
PATIENCE = 4
STARTING = 3
MOST_REPEATS = 20
BROKEN = -10.0
FLOORS_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0)


class Tuner:
    """Proposes options of the static form; the same trials and seed give the same proposals."""

    def __init__(self, weights: ObjectiveWeights, seed: int) -> None:
        self._weights, self._seed = weights, seed
        self._open: dict[int, optuna.Trial] = {}

    @cached_property
    def _study(self) -> "optuna.Study":
        import optuna  # noqa: PLC0415 - takes a third of a second, and nobody asks before int8 was tried

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self._seed, n_startup_trials=STARTING)
        return optuna.create_study(direction="maximize", sampler=sampler)

    def proposals(self, trials: Sequence[Trial], ground: Ground) -> Iterator[Proposal]:
        """The next sample, once the defaults were tried and found faster than float; none where it goes nowhere."""
        self._learn(trials)
        default = next(iter(find(trials, "static")), None)
        if default is None or self._finished(trials):
            return
        sampled = self._sample({key_of(trial.proposal.recipe): trial for trial in trials})
        if sampled is None:
            return
        number, recipe = sampled
        best = max((trial.ratios.latency for trial in find(trials, "static", "tuned")), default=1.0)
        speed = max(ground.static_speed if not default.likely else default.ratios.latency * 1.03, best)
        yield Proposal(
            name=f"int8, static, sample {number + 1}",
            family="tuned",
            recipe=recipe,
            expected=Ratios(speed, default.ratios.size, default.ratios.memory),
            chance=0.3,
            seconds=8.0 + 8 * ground.forward_seconds + ground.measuring_seconds,
            settings={"sample": number},
        )

    def _finished(self, trials: Sequence[Trial]) -> bool:
        # Those that failed among them: a pass that ends in an error ends in one again.
        tried = [trial for trial in trials if trial.proposal.family == "tuned"]
        scores = [self._score(trial) for trial in [*find(trials, "static"), *tried]]
        stale = len(scores) - 1 - max(range(len(scores)), key=scores.__getitem__)
        return len(tried) >= MOST_SAMPLES or stale >= PATIENCE

    def _sample(self, tried: Mapping[str, Trial]) -> tuple[int, tuple[AnyPass, ...]] | None:
        """The sample that waits for its trial, or a new one; None where it only asks for what is known.

        The better it knows a place, the more often it asks for one that was tried: it is told what that came to.
        """
        for _ in range(MOST_REPEATS):
            if not self._open:
                asked = self._study.ask()
                self._open[asked.number] = asked
            number, sample = next(iter(self._open.items()))
            recipe: tuple[AnyPass, ...] = (QuantizeStatic(**{"pass": "quantize_static", **_options(sample)}),)
            known = tried.get(key_of(recipe))
            if known is None:
                return number, recipe
            self._study.tell(self._open.pop(number), self._score(known))
        return None

    def _learn(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            number = trial.proposal.settings.get("sample")
            if trial.proposal.family == "tuned" and number in self._open:
                self._study.tell(self._open.pop(number), self._score(trial))

    def _score(self, trial: Trial) -> float:
        if not trial.measured or trial.drop is None:
            return BROKEN
        gain = trial.ratios.gain(self._weights)
        return gain if trial.likely else min(gain, 0.0) - trial.drop


def _options(trial: "optuna.Trial") -> dict[str, Any]:
    return {
        "calibration_method": trial.suggest_categorical(
            "calibration_method", ["auto", "mse", "minmax", "percentile", "entropy"]
        ),
        "rounding": trial.suggest_categorical("rounding", ["nearest", "gptq"]),
        "weight_clipping": trial.suggest_categorical("weight_clipping", [True, False]),
        "equalization": trial.suggest_categorical("equalization", [False, True]),
        "fidelity_floor_db": trial.suggest_categorical("fidelity_floor_db", list(FLOORS_DB)),
    }
