"""The range that the codes span: what each method is good for, and that none leaves what was seen."""

import numpy as np
import pytest

from tests.worker import networks
from worker.engine.affine import unsigned
from worker.engine.calibration import thresholds
from worker.engine.calibration.histogram import LOG2_BINS, Histogram
from worker.engine.calibration.thresholds import Method, choose_range

METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")


def _range(values: np.ndarray, method: Method, percentile: float = 99.9) -> tuple[float, float]:
    histogram = Histogram()
    histogram.add(values, float(values.min()), float(values.max()))
    return choose_range(histogram, method, percentile)


def _squared_error(values: np.ndarray, low: float, high: float) -> float:
    affine = unsigned(low, high)
    moved = affine.dequantize(affine.quantize(values)).astype(np.float64) - values
    return float(np.square(moved).sum())


def _heavy_tails(kind: str) -> np.ndarray:
    """50,000 values of which a few lie far out: of both signs, behind a Relu, or on one side of an offset."""
    generator = np.random.default_rng(0)
    values = generator.standard_t(3, 50_000).astype(np.float32)
    return {"both": values, "relu": np.maximum(values, 0), "offset": np.abs(values) - 2, "negative": -np.abs(values)}[
        kind
    ]


@pytest.mark.parametrize("kind", ["both", "relu", "offset", "negative"])
def test_the_least_squared_error_beats_the_extremes_on_heavy_tails(kind: str) -> None:
    values = _heavy_tails(kind)
    best, extremes = (_squared_error(values, *_range(values, method)) for method in ("mse", "minmax"))
    assert best < extremes


@pytest.mark.parametrize("kind", ["both", "relu", "offset", "negative"])
def test_no_range_of_a_fine_search_has_much_less_error(kind: str) -> None:
    values = _heavy_tails(kind)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    shares = np.linspace(0.02, 1, 40)
    least = min(_squared_error(values, low * left, high * right) for left in shares for right in shares)
    # The search goes along three lines in 100 steps, over a histogram: it may miss a tenth.
    assert _squared_error(values, *_range(values, "mse")) <= 1.1 * least


def test_without_tails_the_extremes_are_kept() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    low, high = _range(values, "mse")
    # One step of the search is a hundredth.
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_a_percentile_leaves_as_much_on_either_side(percentile: float) -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    low, high = _range(values, "percentile", percentile)
    wanted = (100 - percentile) / 200
    # A bin of 4096 more or less: at most a thousandth of the values.
    assert float((values < low).mean()) == pytest.approx(wanted, abs=1e-3)
    assert float((values > high).mean()) == pytest.approx(wanted, abs=1e-3)


def test_all_of_a_hundred_percent_is_kept() -> None:
    values = _heavy_tails("both")
    assert _range(values, "percentile", 100.0) == _range(values, "minmax")


def test_entropy_cuts_an_outlier_and_keeps_the_bulk() -> None:
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    values[0] = 100.0
    low, high = _range(values, "entropy")
    # All but one of 50,000 normal values lie within 4.5; four times less than the outlier is a cut worth its name.
    assert low >= float(values.min())
    assert 3.0 < high < 25.0


@pytest.mark.parametrize("count", [3, 60, 2000])
def test_entropy_cuts_nothing_off_a_few_values(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    assert _range(values, "entropy") == _range(values, "minmax")


def test_entropy_keeps_what_is_spread_evenly() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    low, high = _range(values, "entropy")
    assert min(-low, high) > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["both", "relu", "offset", "negative"])
def test_no_range_leaves_what_was_seen(kind: str, method: Method) -> None:
    values = _heavy_tails(kind)
    low, high = _range(values, method)
    assert float(values.min()) <= low < high <= float(values.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.5, 1e-38, -1e38])
def test_a_single_value_is_its_own_range(value: float, method: Method) -> None:
    values = np.full(100, value, np.float32)
    assert _range(values, method) == (float(values[0]), float(values[0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-35, 1e35])
def test_ranges_grow_with_the_values(method: Method, scale: float) -> None:
    """Nothing is measured in units of its own: powers of two apart, the same choice."""
    values = _heavy_tails("both")
    factor = 2.0 ** round(np.log2(scale))
    low, high = _range(values, method)
    scaled = _range((values * factor).astype(np.float32), method)
    assert scaled == pytest.approx((low * factor, high * factor), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outlier", [2.0**-149, 1e-30, 1.0, 1e6, -1e20, 3e38])
def test_an_outlier_of_any_size_leaves_the_search_as_long_as_it_was(
    monkeypatch: pytest.MonkeyPatch, method: Method, outlier: float
) -> None:
    """Between tiny values before and after it. What is tried is counted: steps times bins."""
    tried: list[int] = []
    for name in ("_least_error", "_divergence"):
        plain = getattr(thresholds, name)
        counted = lambda *given, plain=plain: tried.append(len(given[0])) or plain(*given)  # noqa: E731
        monkeypatch.setattr(thresholds, name, counted)
    tiny = (networks.normal(3000) * 1e-3).astype(np.float32)
    histogram = Histogram()
    for values in (tiny, np.array([outlier], np.float32), tiny[::-1]):
        histogram.add(values, float(values.min()), float(values.max()))
    low, high = choose_range(histogram, method, 99.9)
    assert histogram.low <= low <= high <= histogram.high
    assert len(tried) <= thresholds.SHRINK_STEPS
    assert max(tried, default=0) <= 2 ** (LOG2_BINS + 1) + 2
