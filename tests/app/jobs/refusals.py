"""What tests of refusals at submission share: a model, data, and what is asked of them."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.config import Settings
from app.datasets.tables import DatasetRow
from app.errors import LatheError
from app.jobs.fitness import check_fitness
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest

ID = UUID(int=1)
IMAGES = {"name": "image", "dtype": "float32", "shape": [100, 1, 8, 8]}
LABELS = {"name": "label", "dtype": "int64", "shape": [100]}
MODEL: dict[str, Any] = {
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["N", 1, 8, 8]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["N", 10]}],
    "opset": 17,
    "ir_version": 9,
    "domains": {},
    "parameter_count": 10,
    "mac_count": 10,
    "operators": {"Conv": 1},
    "trainable": True,
}
GRAPH = [{"pass": "optimize_graph"}]
STATIC = [{"pass": "quantize_static"}]


def check(
    settings: Settings, body: dict[str, Any], arrays: dict[str, list[dict[str, Any]]], model: dict[str, Any] = MODEL
) -> OptimizeRequest:
    request = OptimizeRequest.model_validate({"model_id": str(ID), "data": dict.fromkeys(arrays, str(ID))} | body)
    rows = {
        role: DatasetRow(inspection={"arrays": specs, "sample_count": 100}, status="ready")
        for role, specs in arrays.items()
    }
    return check_fitness(request, ModelRow(inspection=model, status="ready"), rows, settings)


@dataclass
class Refusal:
    """A request, and what its refusal names."""

    id: str
    error: type[LatheError]
    names: str
    recipe: list[dict[str, Any]] = field(default_factory=lambda: GRAPH)
    arrays: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=lambda: MODEL)

    def happens(self, settings: Settings) -> None:
        """Fails unless it is refused so, with a remedy."""
        with pytest.raises(self.error) as caught:
            check(settings, {"recipe": self.recipe} | self.body, self.arrays, self.model)
        assert self.names in caught.value.detail
        assert caught.value.remedy
