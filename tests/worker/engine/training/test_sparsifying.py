"""Zeros that grow while the rest is trained."""

import numpy as np
import torch

from app.recipes.pruning import PruneUnstructured
from worker.engine.pruning.places import Place
from worker.engine.training.sparsifying import Sparsity


def test_frozen_weights_come_back_where_a_later_ranking_leaves_them() -> None:
    """What is judged beside weights that are trained is what is delivered: values as they came, less the last zeros."""
    still, moving = (np.array([[1, 2], [3, 4]], np.float32) * size for size in (1, 10))
    places = [Place("still", "a", "MatMul", still, 0), Place("moving", "b", "MatMul", moving, 0)]
    config = PruneUnstructured.model_validate({"pass": "prune_unstructured", "sparsity": 0.5, "scope": "global"})
    frozen, trained = {"still": torch.from_numpy(still.copy())}, {"moving": torch.from_numpy(moving.copy())}
    hooks = Sparsity(places, config, None, frozen)
    hooks.prune(trained, 0.25)
    assert frozen["still"].tolist() == [[0, 0], [3, 4]]
    trained["moving"].mul_(0.01)
    hooks.prune(trained, 0.5)
    assert frozen["still"].tolist() == still.tolist()
    assert not trained["moving"].any()
