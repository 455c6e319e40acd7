"""Macro-F1 of what is kept of samples: classes and how often each was met, not elements."""

from pathlib import Path

import numpy as np
import pytest

from app.jobs.report import Quality
from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation import bootstrap
from worker.engine.evaluation.bootstrap import NO_CLASS, MacroF1, count_classes, estimate
from worker.engine.evaluation.comparison import compare

SAMPLES, ELEMENTS = 12, 40
CHOSEN = np.random.default_rng(0)


def plain(labels: np.ndarray, predictions: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> float:
    """By its definition, element by element; NaN where no class occurs."""
    each, found = weights[owners], []
    for name in np.unique(np.concatenate([labels, predictions])):
        truth, guess = labels == name, predictions == name
        seen = np.sum(each[truth]) + np.sum(each[guess])
        if name >= 0 and seen > 0:
            found.append(2 * np.sum(each[truth & guess]) / seen)
    return float(np.mean(found)) if found else float("nan")


@pytest.mark.parametrize("names", [np.arange(5), np.array([0, 7, 2**62])], ids=["few", "far apart"])
def test_it_is_that_of_all_elements(names: np.ndarray) -> None:
    labels = CHOSEN.choice(names, SAMPLES * ELEMENTS)
    predictions = np.where(CHOSEN.random(len(labels)) < 0.6, labels, CHOSEN.choice([NO_CLASS, *names], len(labels)))
    owners = np.repeat(np.arange(SAMPLES), ELEMENTS)
    weights = CHOSEN.integers(0, 4, (6, SAMPLES)).astype(np.float64)
    weights[0] = 0
    found = MacroF1(**count_classes(labels, predictions, owners))(weights)
    np.testing.assert_array_equal(found, [plain(labels, predictions, owners, row) for row in weights])


def test_no_class_is_none_that_it_is_the_mean_over() -> None:
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([0, NO_CLASS, 1, 1])
    # 2 * 1 / (2 * 1 + 1) of class 0, 1 of class 1.
    found = MacroF1(**count_classes(labels, predicted, np.arange(4)))(np.ones((1, 4)))
    assert found[0] == pytest.approx((2 / 3 + 1) / 2)


def test_of_an_image_classes_are_kept_and_not_pixels() -> None:
    labels, predictions = CHOSEN.integers(0, 3, (2, 4 * 64 * 64))
    kept = count_classes(labels, predictions, np.repeat(np.arange(4), 64 * 64))
    assert {name: len(column) for name, column in kept.items()} == dict.fromkeys(kept, 4 * 3)


def test_of_no_known_labels_nothing_is_kept() -> None:
    nothing = np.zeros(0, np.int64)
    kept = count_classes(nothing, nothing, nothing)
    assert not any(len(column) for column in kept.values())
    assert np.isnan(MacroF1(**kept)(np.ones((1, 4)))[0])


def scored(samples: int, elements: int = ELEMENTS, classes: int = 5) -> MacroF1:
    labels = CHOSEN.integers(0, classes, samples * elements)
    predictions = np.where(CHOSEN.random(len(labels)) < 0.6, labels, CHOSEN.integers(NO_CLASS, classes, len(labels)))
    return MacroF1(**count_classes(labels, predictions, np.repeat(np.arange(samples), elements)))


def test_of_groups_each_class_is_one_row() -> None:
    whole, groups = scored(1000), CHOSEN.integers(0, 20, 1000)
    pooled = whole.pooled(groups)
    assert len(whole.owners) > 4000
    assert len(pooled.owners) == 20 * (5 + 1)  # NO_CLASS has rows too
    weights = CHOSEN.integers(0, 4, (6, 20)).astype(np.float64)
    np.testing.assert_array_equal(pooled(weights), whole(weights[:, groups]))


def test_few_groups_are_drawn_where_there_are_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = scored(60)
    (each,) = estimate([statistic], 60, 0)
    monkeypatch.setattr(bootstrap, "ROW_SUMS", len(statistic.owners) * bootstrap.REPLICATES - 1)
    monkeypatch.setattr(bootstrap, "FEW_GROUPS", 30)
    (grouped,) = estimate([statistic], 60, 0)
    owners = np.random.default_rng(0).permutation(60) % 30
    weights = np.random.default_rng(0).integers(30, size=(bootstrap.REPLICATES, 30))
    counts = np.stack([np.bincount(row, minlength=30) for row in weights]).astype(np.float64)
    np.testing.assert_array_equal(grouped.replicates, statistic(counts[:, owners]))
    assert grouped.value == each.value
    assert np.std(grouped.replicates) == pytest.approx(np.std(each.replicates), rel=0.5)


def test_replicates_are_those_of_resampled_elements() -> None:
    statistic = scored(SAMPLES)
    (found,) = estimate([statistic], SAMPLES, 3)
    drawn = np.random.default_rng(3).integers(SAMPLES, size=(bootstrap.REPLICATES, SAMPLES))
    for replicate, owners in zip(found.replicates[:20], drawn, strict=False):
        counts = np.bincount(owners, minlength=SAMPLES)
        rows = np.repeat(np.arange(len(statistic.owners)), counts[statistic.owners])
        hits, seen = (np.bincount(statistic.classes[rows] + 1, of[rows])[1:] for of in (statistic.hits, statistic.seen))
        assert replicate == np.mean(2 * hits / seen)


@pytest.mark.parametrize("metric", ["f1", "top1"])
def test_its_interval_is_drawn_where_it_is_asked_for(tmp_path: Path, metric: str) -> None:
    text = "agraph (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Identity (x) }"
    model, x = networks.parse(text), networks.normal(20, 3, 8, 8)
    labels = {"label": np.where(networks.normal(20, 8, 8, seed=1) > 0, np.argmax(x, axis=1), 0)}
    asked = {"name": metric, "output": "y", "labels": "label"}
    answer = compare(comparison(tmp_path, (model, model), {"x": x}, asked, labels, batch=4))
    found: dict[str, Quality] = {one.name: one for one in answer.candidate}
    assert found["f1"].value is not None and found["top1"].low is not None
    assert (found["f1"].low is not None) == (answer.influence is not None) == (metric == "f1")
