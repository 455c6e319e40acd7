"""A histogram holds the same whatever the order, and every value lies in the bin that counts it."""

import numpy as np
import pytest

from worker.engine.calibration.histogram import LEAST_EXPONENT, LOG2_BINS, Histogram


def _histogram(*tensors: np.ndarray) -> Histogram:
    histogram = Histogram()
    for values in tensors:
        histogram.add(values, float(values.min()), float(values.max()))
    return histogram


def _content(histogram: Histogram) -> tuple[float, float, dict[float, int]]:
    """Extremes, and how many values each bin holds that holds any, by its centre."""
    centres, counts = histogram.bins()
    filled = {float(centre): int(count) for centre, count in zip(centres, counts, strict=True) if count}
    return histogram.low, histogram.high, filled


def _parts(seed: int = 0) -> list[np.ndarray]:
    """Tensors of very different sizes, signs and shares of zeros."""
    generator = np.random.default_rng(seed)
    scales = (1e-6, 1.0, 300.0, 0.02, 1e5)
    parts = [(generator.standard_normal(500) * scale).astype(np.float32) for scale in scales]
    parts[1][::3] = 0
    return [*parts, np.zeros(50, np.float32), -np.abs(parts[0])]


def _numpys(histogram: Histogram, values: np.ndarray) -> np.ndarray:
    edges, _ = histogram.edges()
    return np.histogram(values.astype(np.float64), edges)[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_values_does_not_matter(seed: int) -> None:
    parts = _parts()
    order = np.random.default_rng(seed).permutation(len(parts))
    assert _content(_histogram(*(parts[index] for index in order))) == _content(_histogram(np.concatenate(parts)))


def test_it_counts_as_numpy_does_over_the_same_edges() -> None:
    parts = _parts()
    histogram = _histogram(*parts)
    values = np.concatenate(parts)
    edges, counts = histogram.edges()
    np.testing.assert_array_equal(counts, _numpys(histogram, values))
    assert counts.sum() == len(values)
    assert edges[0] <= values.min() <= values.max() <= edges[-1]


def test_widening_loses_nothing_and_keeps_enough_bins() -> None:
    histogram = Histogram()
    for exponent in range(-20, 21):
        values = np.array([-(2.0**exponent), 2.0**exponent], np.float32)
        histogram.add(values, float(values[0]), float(values[1]))
        edges, counts = histogram.edges()
        assert counts.sum() == 2 * (exponent + 21)
        # Between 0 and the largest magnitude, as the module says.
        assert 2 ** (LOG2_BINS - 1) <= 2.0**exponent / (edges[1] - edges[0]) <= 2**LOG2_BINS


def test_negative_values_lie_in_bins_below_zero() -> None:
    values = -np.abs(_parts()[1])
    histogram = _histogram(values)
    centres, counts = histogram.bins()
    assert (histogram.low, histogram.high) == (float(values.min()), float(values.max()))
    assert (centres[:-1][counts[:-1] > 0] < 0).all()
    # Zeros are no sample of any bin.
    assert (centres[-1], counts[-1]) == (0.0, int((values == 0).sum()))


def test_zeros_alone_are_one_bin() -> None:
    histogram = _histogram(np.zeros(7, np.float32), np.zeros(5, np.float32))
    assert _content(histogram) == (0.0, 0.0, {0.0: 12})
    edges, counts = histogram.edges()
    assert counts.tolist() == [12]
    assert edges[0] == 0.0


def test_zeros_before_values_change_nothing() -> None:
    zeros, values = np.zeros(3, np.float32), np.array([0.5, 700.0], np.float32)
    assert _content(_histogram(zeros, values)) == _content(_histogram(values, zeros))


@pytest.mark.parametrize(
    "largest",
    [np.finfo(np.float32).max, np.finfo(np.float32).tiny, np.finfo(np.float32).smallest_subnormal, 1e30, 1e-30],
)
def test_the_largest_and_the_smallest_float32_have_bins(largest: float) -> None:
    values = (np.linspace(-1, 1, 101) * largest).astype(np.float32)
    histogram = _histogram(values)
    edges, counts = histogram.edges()
    assert np.isfinite(edges).all()
    assert counts.sum() == len(values)
    assert len(counts) <= 2 ** (LOG2_BINS + 1) + 2
    assert edges[1] - edges[0] >= 2.0**LEAST_EXPONENT


SMALLEST, LARGEST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)
PATHOLOGIES = {
    "tiny-huge-tiny": [SMALLEST, LARGEST, SMALLEST],
    "huge-tiny": [-LARGEST, *[SMALLEST] * 20],
    "zeros-huge-zeros": [0.0, LARGEST, 0.0, -LARGEST],
    "every-power-upwards": [2.0**exponent for exponent in range(-149, 128)],
    "every-power-downwards": [-(2.0**exponent) for exponent in range(127, -150, -1)],
    "ever-larger-outliers": [value for exponent in range(0, 127, 7) for value in (1.0, -(2.0**exponent))],
}


@pytest.mark.parametrize("outliers", PATHOLOGIES.values(), ids=PATHOLOGIES.keys())
@pytest.mark.parametrize("with_sample", [True, False], ids=["sampled", "outlier-not-sampled"])
def test_no_sequence_makes_more_bins_than_said(outliers: list[float], with_sample: bool) -> None:
    """Neither memory nor the search for a range, which goes over these bins, depends on what came in which order."""
    bulk = np.linspace(-1e-3, 1e-3, 201, dtype=np.float32)
    histogram, count = Histogram(), 0
    for outlier in outliers:
        values = np.append(bulk, np.float32(outlier)) if with_sample else bulk
        histogram.add(values, min(-1e-3, outlier), max(1e-3, outlier))
        edges, counts = histogram.edges()
        count += len(values)
        assert len(counts) <= 2 ** (LOG2_BINS + 1) + 2
        assert counts.sum() == count
        assert edges[0] <= histogram.low
        assert edges[-1] >= histogram.high
