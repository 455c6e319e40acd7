"""A classifier that answers with the names of classes is compared by them."""

from pathlib import Path

import numpy as np

from app.recipes.request import Metric
from tests.worker import networks
from worker.engine.evaluation.comparison import compare
from worker.engine.evaluation.requests import Comparison
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.stored_arrays import ArrayStore

COUNT = 200


def test_text_is_compared_by_the_samples_where_it_stays_the_same(tmp_path: Path) -> None:
    """Beside an array of its own name, whose numbers are no names."""
    x = networks.normal(COUNT, 3)
    original, candidate = (
        ModelFile(networks.save(networks.named_classes(scale), tmp_path / name))
        for name, scale in (("original", [1, 1, 1]), ("candidate", [1, 1, 2]))
    )
    store = ArrayStore(tmp_path / "store")
    request = Comparison(
        original=str(original.path),
        candidate=str(candidate.path),
        feed=match_arrays(inputs_of(original.structure()), {"x": x}, "data").describe(store),
        labels={"name": store.keep(np.zeros(COUNT, np.int64))},
        metric=Metric(name="agreement", output="name"),
        threads=1,
        batch=8,
        seconds=30,
        seed=0,
    )
    found = compare(request)
    same = np.mean(x.argmax(axis=1) == (x * [1, 1, 2]).argmax(axis=1))
    assert 0.5 < same < 1
    assert (found.metric_original, found.metric_candidate, found.drop) == (1.0, same, 1 - same)
    assert [(one.name, one.output) for one in found.candidate] == [("agreement", "name")]
    assert (found.original, found.warnings) == ([], [])
