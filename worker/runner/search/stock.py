"""What earlier searches of the same finished, and what this one finishes for later ones.

Pieces come back from a runner that had opened the same untrusted model: each is read through its shape, and one that
cannot be read is made anew.
"""

import shutil
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.jobs.report import Finite, Interval, Step
from app.recipes.catalogue import AnyPass
from app.recipes.request import Metric
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import ExtraKind
from worker.engine.search.proposals import Ratios, Trial
from worker.runner.archives import Unreadable, pack_files, unpack_files
from worker.runner.chain import Outcome
from worker.runner.contract import PIECE_FOLDER, FileName, Piece
from worker.runner.events import Events
from worker.runner.search.identity import Identity

FACTS = "piece.json"
MODEL, EXTRAS = "model", "extras"
MOST_FACTS_BYTES = 64 << 20

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MadeStep(_Facts):
    """What a pass made; the files lie beside it."""

    step: Step
    manifest: dict[str, Any]
    model: FileName
    extras: dict[ExtraKind, FileName]


class MeasuredTrial(_Facts):
    """What was measured on a file, on the samples for choosing."""

    seconds: Finite
    """What building and measuring it took then."""
    latency_ratio: Ratio
    latency_low: Finite | None
    latency_high: Finite | None
    scaled_latency_ratio: Ratio
    """On one scale with the other trials of that search."""
    size_ratio: Ratio
    memory_ratio: Ratio
    value: Finite | None
    drop: Finite
    drop_below: Finite | None
    sqnr_db: Finite | None

    @property
    def latency(self) -> Interval:
        return Interval(value=self.latency_ratio, low=self.latency_low, high=self.latency_high)

    @property
    def ratios(self) -> Ratios:
        return Ratios(self.scaled_latency_ratio, self.size_ratio, self.memory_ratio)


class Rows(BaseModel):
    """What a pass found out, rows of numbers by name: scores, of which some are infinite, ranges, times."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    rows: dict[str, list[float]]


FactsT = TypeVar("FactsT", MadeStep, MeasuredTrial, Rows)


@dataclass
class Stock:
    """`given` is, by key, what was brought and no step was taken of yet; `most_bytes` is what a piece may have to be
    kept.
    """

    identity: Identity
    workdir: Path
    scratch: Path
    given: dict[str, str]
    most_bytes: int
    events: Events
    _hashes: dict[Path, str] = field(default_factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def take_step(self, config: AnyPass, outcome: Outcome, folder: Path) -> bool:
        """Whether `outcome` went on by what this pass made of its model in an earlier search, unpacked in `folder`."""
        unpacked = folder / "given"
        key = self.identity.of_step(self._hash(outcome.model), config)
        made = self._found(key, unpacked, MadeStep)
        if made is None:
            return False
        model = ModelFile(unpacked / MODEL / made.model)
        extras = {kind: unpacked / EXTRAS / name for kind, name in made.extras.items()}
        if not _can_be_opened(model) or not all(path.is_file() for path in extras.values()):
            shutil.rmtree(unpacked)
            return False
        outcome.go_on(model, made.step, made.manifest, extras)
        # Unpacked it is all there, and together such archives have gigabytes.
        (self.workdir / self.given.pop(key)).unlink(missing_ok=True)
        return True

    def keep_step(self, config: AnyPass, given: ModelFile, outcome: Outcome) -> None:
        """The last step of `outcome`, which made its model of `given`."""
        files = {f"{MODEL}/{path.name}": path for path in outcome.model.files()}
        files |= {f"{EXTRAS}/{path.name}": path for path in outcome.extras.values()}
        made = {
            "step": outcome.steps[-1],
            "manifest": outcome.manifests[-1],
            "model": outcome.model.path.name,
            "extras": {kind: path.name for kind, path in outcome.extras.items()},
        }
        self._keep(self.identity.of_step(self._hash(given), config), MadeStep.model_validate(made), files)

    def find_trial(self, model: ModelFile, metric: Metric, *, with_memory: bool) -> MeasuredTrial | None:
        """What an earlier search measured on the same bytes."""
        key = self.identity.of_trial(self._hash(model), metric, with_memory=with_memory)
        folder = self.scratch / "given-trial"
        found = self._found(key, folder, MeasuredTrial)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def keep_trial(self, model: ModelFile, metric: Metric, trial: Trial, *, with_memory: bool) -> None:
        """A trial whose figures are all there; others are measured again."""
        if trial.latency is None:
            return
        try:
            measured = MeasuredTrial.model_validate(
                {
                    "seconds": trial.seconds,
                    "latency_ratio": trial.latency.value,
                    "latency_low": trial.latency.low,
                    "latency_high": trial.latency.high,
                    "scaled_latency_ratio": trial.ratios.latency,
                    "size_ratio": trial.ratios.size,
                    "memory_ratio": trial.ratios.memory,
                    "value": trial.value,
                    "drop": trial.drop,
                    "drop_below": trial.drop_below,
                    "sqnr_db": trial.sqnr_db,
                }
            )
        except ValidationError:
            return
        self._keep(self.identity.of_trial(self._hash(model), metric, with_memory=with_memory), measured, {})

    def find_rows(self, key: Sequence[Hashable]) -> dict[str, np.ndarray] | None:
        """What an earlier search found out of the same."""
        folder = self.scratch / "given-rows"
        found = self._found(self.identity.of_finding(self._told(key)), folder, Rows)
        shutil.rmtree(folder, ignore_errors=True)
        return None if found is None else {name: np.array(values) for name, values in found.rows.items()}

    def keep_rows(self, key: Sequence[Hashable], rows: Mapping[str, np.ndarray]) -> None:
        """`key` is what they rest on beside the job's data and seed."""
        told = Rows(rows={name: values.tolist() for name, values in rows.items()})
        self._keep(self.identity.of_finding(self._told(key)), told, {})

    def _told(self, key: Sequence[Hashable]) -> list[Any]:
        """As JSON has it; of a file its hash, as the next search has it elsewhere."""
        return [self._hash(part) if isinstance(part, ModelFile) else _plain(part) for part in key]

    def _found(self, key: str, folder: Path, shape: type[FactsT]) -> FactsT | None:
        if key not in self.given:
            return None
        try:
            unpack_files(self.workdir / self.given[key], folder)
            facts = folder / FACTS
            if facts.stat().st_size > MOST_FACTS_BYTES:
                raise ValueError("more than a piece tells of itself")
            return shape.model_validate_json(facts.read_bytes())
        except (Unreadable, OSError, ValueError) as error:
            reason = error if isinstance(error, Unreadable) else type(error).__name__
            self.events.log(f"What an earlier search left cannot be read ({reason}): it is made anew.")
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def _keep(self, key: str, facts: BaseModel, files: Mapping[str, Path]) -> None:
        """A full disk loses it and nothing else."""
        if sum(path.stat().st_size for path in files.values()) > self.most_bytes:
            return
        name = f"{self._count}.tar"
        self._count += 1
        told = self.scratch / FACTS
        try:
            told.write_text(facts.model_dump_json(by_alias=True))
            pack_files(self.workdir / PIECE_FOLDER / name, {FACTS: told, **files})
        except OSError as error:
            self.events.log(f"A later search will make this anew: it could not be kept ({error.strerror}).")
            return
        self.events.piece(Piece(file=name, key=key))

    def _hash(self, model: ModelFile) -> str:
        if model.path not in self._hashes:
            self._hashes[model.path] = model.sha256()
        return self._hashes[model.path]


def _plain(part: Hashable) -> Any:
    if isinstance(part, frozenset):
        return sorted(map(str, part))
    return list(part) if isinstance(part, tuple) else part


def _can_be_opened(model: ModelFile) -> bool:
    try:
        inputs_of(model.structure())
    except Exception:  # whatever a file that is none makes the parser say
        return False
    return True
