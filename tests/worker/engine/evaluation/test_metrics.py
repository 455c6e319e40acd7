"""Scores of samples, against their definitions."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from sklearn.metrics import f1_score, top_k_accuracy_score

from worker.engine.evaluation import bootstrap, metrics
from worker.engine.evaluation.bootstrap import Drop, MacroF1, Mean, SqnrDb, Statistic, count_classes, estimate
from worker.engine.evaluation.latency import median_interval

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.standard_normal((200, 7)).astype(np.float32)
LABELS = GENERATOR.integers(0, 7, 200)


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_is_scikit_learns(k: int) -> None:
    expected = top_k_accuracy_score(LABELS, SCORES, k=k, labels=np.arange(7))
    assert metrics.top_k(SCORES, LABELS, k).mean() == pytest.approx(expected)


def test_macro_f1_is_scikit_learns() -> None:
    predicted = metrics.classes(SCORES, LABELS)
    statistic = MacroF1(**count_classes(LABELS, predicted, np.arange(200)))
    assert statistic(np.ones((1, 200)))[0] == pytest.approx(f1_score(LABELS, predicted, average="macro"))


@pytest.mark.parametrize(
    ("output", "axis"),
    [((6, 3), 1), ((6, 8, 3), 2), ((6, 8, 8), 2), ((6, 3, 8), 1), ((6, 8, 8, 8), 1), ((6, 8, 8, 3), 3)],
)
def test_classes_lie_where_labels_leave_an_axis_and_else_where_they_usually_do(
    output: tuple[int, ...], axis: int
) -> None:
    assert metrics.class_axis(output, output[:axis] + output[axis + 1 :]) == axis


@pytest.mark.parametrize("k", [1, 5])
def test_classes_may_be_numbered_in_a_column(k: int) -> None:
    np.testing.assert_array_equal(metrics.top_k(SCORES, LABELS[:, None], k), metrics.top_k(SCORES, LABELS, k))
    assert metrics.classes(SCORES, LABELS[:, None]).shape == (200, 1)


def test_an_axis_of_one_says_where_the_scores_are() -> None:
    """Of three places of three classes the labels alone do not."""
    scores = np.array([[[0, 2, 0], [1, 0, 1], [0, 1, 2]]], np.float32)
    assert metrics.classes(scores, np.zeros((1, 1, 3), int)).tolist() == [[[1, 0, 2]]]
    assert metrics.classes(scores, np.zeros((1, 3, 1), int)).tolist() == [[[1], [0], [2]]]


def test_token_labels_below_zero_are_not_counted() -> None:
    scores = np.eye(3, dtype=np.float32)[None].repeat(2, axis=0)
    labels = np.array([[0, 1, -100], [1, -100, -100]])
    np.testing.assert_allclose(metrics.top_k(scores, labels, 1), [1.0, 0.0])


def test_agreement_is_the_top_class_of_scores_and_a_tolerance_elsewhere() -> None:
    np.testing.assert_allclose(metrics.agreement(SCORES, SCORES[:, ::-1]).mean(), 0.1, atol=0.1)
    maps = np.ones((2, 3, 4, 4), np.float32)
    moved = maps.copy()
    moved[0, 0] *= 1.04
    moved[1, 0] *= 1.06
    # 5 % of the root mean square, here 1: 4 % off still agrees, 6 % off on a third of the elements does not.
    np.testing.assert_allclose(metrics.agreement(maps, moved), [1.0, 2 / 3])


def test_sqnr_is_its_definition() -> None:
    noise = GENERATOR.standard_normal(SCORES.shape) * 0.01
    signal, power = metrics.signal_and_noise(SCORES.astype(np.float64), SCORES + noise)
    decibels = SqnrDb(signal, power)(np.ones((1, 200)))[0]
    # A signal of variance 1 under noise of deviation 0.01 has 40 dB; 1,400 draws leave it within 0.5.
    assert decibels == pytest.approx(40.0, abs=0.5)


def test_labels_that_no_output_can_answer_are_refused() -> None:
    with pytest.raises(metrics.MetricMismatch, match=r"\[200, 1\]"):
        metrics.top_k(SCORES[:, :1], LABELS, 1)


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [("top1", 0.9, 0.88, 0.02), ("mse", 2.0, 2.2, 0.1), ("mae", 0.0, 0.0, 0.0), ("sqnr_db", np.inf, 20.0, 0.01)],
    ids=["top1", "mse", "no-error-at-all", "sqnr"],
)
def test_a_drop_is_what_the_contract_bounds(name: str, before: float, after: float, expected: float) -> None:
    assert float(metrics.drop(name, np.array(before), np.array(after))) == pytest.approx(expected)


def test_the_bootstrap_interval_of_a_mean_is_that_of_the_normal_theory() -> None:
    hits = (GENERATOR.random(1000) < 0.8).astype(np.float64)
    found = estimate([Mean(hits)], 1000, seed=0)[0]
    half = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 1000)
    # The ends of a percentile interval of 1,000 replicates carry about 6 % of its half width themselves.
    assert found.low == pytest.approx(hits.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(hits.mean() + half, abs=0.2 * half)
    assert estimate([Mean(hits)], 1000, seed=0)[0] == found


@pytest.mark.parametrize(("confidence", "replicates"), [(0.6, 1000), (0.95, 1000), (0.99, 1000), (0.999, 10_000)])
def test_beyond_a_bound_lie_ten_replicates_at_least(confidence: float, replicates: int) -> None:
    (found,) = estimate([Mean(np.arange(50.0))], 50, 0, confidence)
    bound = found.bound(confidence)
    assert len(found.replicates) == replicates
    assert bound is not None and np.sum(found.replicates > bound) >= 10


SAMPLES, GROUPS, DRAWN = 200, np.arange(200) % 30, np.random.default_rng(1)
POOLED: dict[str, Statistic] = {
    "mean": Mean(np.where(np.arange(SAMPLES) % 7, DRAWN.random(SAMPLES), np.nan)),
    "sqnr": SqnrDb(DRAWN.random(SAMPLES), DRAWN.random(SAMPLES)),
    "f1": MacroF1(**count_classes(LABELS, metrics.classes(SCORES, LABELS), np.arange(SAMPLES))),
    "drop": Drop("mse", Mean(DRAWN.random(SAMPLES)), Mean(DRAWN.random(SAMPLES))),
}


@pytest.mark.parametrize("name", POOLED)
def test_a_statistic_of_groups_is_that_of_their_samples(name: str) -> None:
    weights = DRAWN.integers(0, 3, (5, 30)).astype(np.float64)
    found, expected = POOLED[name].pooled(GROUPS)(weights), POOLED[name](weights[:, GROUPS])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@dataclass(frozen=True)
class Counted:
    """A mean that keeps how many replicates it was asked for."""

    mean: Mean
    asked: list[int] = field(default_factory=list)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        self.asked.append(len(weights))
        return self.mean(weights)

    def pooled(self, groups: np.ndarray) -> Statistic:
        return self.mean.pooled(groups)


def test_a_drop_is_of_the_replicates_that_its_parts_have_anyway() -> None:
    before, after = (Counted(Mean(DRAWN.random(SAMPLES))) for _ in range(2))
    lost = Drop("mse", before, after)
    original, candidate, found = estimate([before, after, lost], SAMPLES, seed=0)
    assert [sum(count for count in one.asked if count > 1) for one in (before, after)] == [bootstrap.REPLICATES] * 2
    np.testing.assert_array_equal(found.replicates, metrics.drop("mse", original.replicates, candidate.replicates))
    assert estimate([lost], SAMPLES, seed=0) == [found]


def test_more_samples_than_can_be_drawn_are_drawn_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 groups of 200 samples: the interval is as wide as that of normal theory, give or take what 50 show of it."""
    monkeypatch.setattr(bootstrap, "DRAWS", 50 * bootstrap.REPLICATES)
    # Groups that followed the order of samples would be of one kind each, or of none.
    values = (np.arange(10_000) % 50 < 25).astype(np.float64)
    (found,) = estimate([Mean(values)], len(values), seed=0)
    assert found.low is not None and found.high is not None
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 100, rel=0.35)


def test_what_is_not_finite_becomes_null() -> None:
    exact = SqnrDb(np.ones(5), np.zeros(5))
    assert estimate([exact], 5, seed=0)[0].value is None


@pytest.mark.parametrize(("count", "low", "high"), [(5, 1, 5), (9, 2, 8), (21, 6, 16)], ids=str)
def test_the_interval_of_a_median_comes_from_order_statistics(count: int, low: int, high: int) -> None:
    """The ranks of the table of H. A. David; five values reach no 95 % and give their whole range."""
    found = median_interval([float(value) for value in range(1, count + 1)])
    assert (found.low, found.value, found.high) == (low, (count + 1) / 2, high)
