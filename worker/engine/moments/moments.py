"""Sums over rows: first and second moments of what a product is fed, and between it and what it should give."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Moments:
    """Of rows `(n, G, K)`, G groups of K terms: sums `(G, K)` and, where wanted, products `(K, K)` (only for G = 1)."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    products: np.ndarray | None = None

    def add(self, rows: np.ndarray, with_products: bool) -> None:
        """Float rows `(n, G, K)`; summed in float64, products in the rows' own dtype."""
        if not self.count:
            self.total = np.zeros(rows.shape[1:])
            self.squares = np.zeros(rows.shape[1:])
        self.count += len(rows)
        self.total += rows.sum(axis=0, dtype=np.float64)
        self.squares += np.square(rows, dtype=np.float64).sum(axis=0)
        if with_products:
            flat = rows[:, 0]
            with np.errstate(over="ignore", invalid="ignore"):  # `finite` says so
                update = flat.T @ flat
            self.products = update if self.products is None else self.products + update

    @property
    def finite(self) -> bool:
        """Whether neither NaN nor infinity came by, and no sum grew beyond what float32 holds."""
        return bool(np.isfinite(self.squares).all() and (self.products is None or np.isfinite(self.products).all()))

    @property
    def mean(self) -> np.ndarray:
        """E[x] `(G, K)`."""
        return self.total / max(1, self.count)

    @property
    def power(self) -> np.ndarray:
        """E[x^2] `(G, K)`."""
        return self.squares / max(1, self.count)


@dataclass
class CrossMoments:
    """Of rows u `(n, 1, K)` and the results y `(n, C)` that are wanted of them.

    `inputs` has the products U U^T `(K, K)`; `cross` is Y U^T `(C, K)`; `total` and `squares` `(C,)` are of y. What
    fits best without a bias is (Y U^T)(U U^T)^-1.
    """

    inputs: Moments = field(default_factory=Moments)
    cross: np.ndarray = field(default_factory=lambda: np.zeros(0))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, rows: np.ndarray, results: np.ndarray) -> None:
        """Float rows `(n, 1, K)` and the results `(n, C)` that are wanted of them."""
        if not self.inputs.count:
            self.cross = np.zeros((results.shape[1], rows.shape[2]))
            self.total, self.squares = np.zeros(results.shape[1]), np.zeros(results.shape[1])
        self.inputs.add(rows, with_products=True)
        with np.errstate(over="ignore", invalid="ignore"):
            self.cross += results.T @ rows[:, 0]
        self.total += results.sum(axis=0, dtype=np.float64)
        self.squares += np.square(results, dtype=np.float64).sum(axis=0)
