"""What one search leaves, and the next one finds of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.worker import networks
from tests.worker.runner.optimizing import PieceEvents
from worker.engine.model_file import ModelFile, save_model
from worker.runner.contract import PIECE_FOLDER
from worker.runner.search.identity import Identity
from worker.runner.search.stock import Stock


@dataclass
class Runner:
    """What a search leaves, and what the next one finds of it."""

    folder: Path
    stock: Stock
    events: PieceEvents

    def left(self) -> dict[str, Path]:
        return {one.key: self.stock.workdir / PIECE_FOLDER / one.file for one in self.events.pieces}

    def next(self, **given: Any) -> Stock:
        return stock(self.folder / "next", **({"given": self.left()} | given)).stock


def stock(folder: Path, given: dict[str, Path] | None = None, most_bytes: int = 1 << 20) -> Runner:
    (folder / PIECE_FOLDER).mkdir(parents=True)
    (folder / "scratch").mkdir()
    events = PieceEvents()
    paths = {key: str(path) for key, path in (given or {}).items()}
    return Runner(folder, Stock(Identity({}), folder, folder / "scratch", paths, most_bytes, events), events)


@pytest.fixture
def original(tmp_path: Path) -> ModelFile:
    return save_model(networks.perceptron(), tmp_path / "original")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return stock(tmp_path / "runner")
