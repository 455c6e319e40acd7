"""A classifier that answers with the names of classes is compared by them."""

from pathlib import Path

import numpy as np

from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation.comparison import compare

COUNT = 200


def test_text_is_compared_by_the_samples_where_it_stays_the_same(tmp_path: Path) -> None:
    """Beside an array of its own name, whose numbers are no names."""
    x = networks.normal(COUNT, 3)
    models = (networks.named_classes([1, 1, 1]), networks.named_classes([1, 1, 2]))
    asked, labels = {"name": "agreement", "output": "name"}, {"name": np.zeros(COUNT, np.int64)}
    found = compare(comparison(tmp_path, models, {"x": x}, asked, labels, batch=8))
    same = np.mean(x.argmax(axis=1) == (x * [1, 1, 2]).argmax(axis=1))
    assert 0.5 < same < 1
    assert (found.metric_original, found.metric_candidate, found.drop) == (1.0, same, 1 - same)
    assert [(one.name, one.output) for one in found.candidate] == [("agreement", "name")]
    assert (found.original, found.warnings) == ([], [])
