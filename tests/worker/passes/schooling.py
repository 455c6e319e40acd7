"""What tests of the passes that train share: a task that small networks can learn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import Checkpoints, NoCheckpoints, PassContext, PassResult, TrainingData
from worker.passes.registry import load_pass

SAMPLES = 400
ROWS = {"x": networks.normal(SAMPLES, 8)}


@dataclass
class Job:
    """One run of a pass; `phases`, `logs` and `shares` are what it told."""

    folder: Path
    arrays: Mapping[str, np.ndarray] = field(default_factory=lambda: ROWS)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    original: ModelFile | None = None
    others: Mapping[str, ModelFile] = field(default_factory=dict)
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    deadline: float = float("inf")
    phases: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def log(self, message: str) -> None:
        self.logs.append(message)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def run(self, name: str, model: ModelFile, **arguments: Any) -> PassResult:
        self.folder.mkdir(parents=True)
        feeds = match_arrays(inputs_of(model.structure()), dict(self.arrays), "the data")
        context = PassContext(
            scratch=self.folder,
            feeds=feeds,
            seed=0,
            threads=1,
            deadline=self.deadline,
            progress=self.shares.append,
            phase=self.phase,
            training=TrainingData(feeds, dict(self.labels)),
            original=self.original,
            others=self.others,
            checkpoints=self.checkpoints,
            log=self.log,
        )
        config = CATALOGUE[name].config.model_validate({"pass": name, **arguments})
        return load_pass(name)(model, config, context)


def save(model: ModelProto, folder: Path) -> ModelFile:
    return ModelFile(networks.save(model, folder))


def answers(model: ModelFile, arrays: Mapping[str, np.ndarray] = ROWS) -> dict[str, np.ndarray]:
    """What ONNX Runtime gives, by output."""
    session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(arrays)), strict=True))


def top1(model: ModelFile, labels: np.ndarray, arrays: Mapping[str, np.ndarray] = ROWS) -> float:
    """Share of the samples whose highest score is their label's."""
    scores = next(iter(answers(model, arrays).values()))
    return float((scores.argmax(axis=1) == labels).mean())
