"""The products of low rank that come closest to a weight, on what it is fed.

For rows x with second moments H = E[x x^T] and a weight W `(N, K)`, the power of W x that a product of rank r loses is
the sum of the squares of the singular values of W S that it leaves out, S S^T = H: X. Yuan et al., ASVD,
arXiv:2312.05821; X. Wang et al., SVD-LLM: Truncation-aware Data Whitening for Large Language Model Compression,
ICLR 2025, arXiv:2403.07378. With U the left vectors that are kept, the factors are U and U^T W: no inverse is taken.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from worker.engine.moments.moments import Moments

# Of the mean power of a term: directions that no sample showed count for this much.
DAMPING = 0.01
# Of the largest: directions below it are rounding errors.
SMALLEST_SHARE = 1e-12
# Of the mean of a diagonal: what keeps a system of equations solvable.
SOLVABLE = 1e-9


@dataclass(frozen=True)
class Spectrum:
    """`vectors` `(N, R)`: directions of the output, orthonormal or zero; `energies` `(R,)`: power in each, falling.

    R is the least of N and K: all of the output's power is in these; there may be fewer vectors.
    """

    vectors: np.ndarray
    energies: np.ndarray

    def cut(self, rank: int) -> "Spectrum":
        """Without the directions beyond a rank, which takes less memory."""
        return Spectrum(self.vectors[:, :rank].copy(), self.energies)

    def lost(self, rank: int) -> float:
        """Share of the output's power that is lost at this rank."""
        total = float(self.energies.sum())
        return 0.0 if total == 0 else float(self.energies[rank:].sum()) / total


def second_moments(moments: Moments | None, terms: int) -> np.ndarray:
    """H `(K, K)` float64, damped; the identity where nothing is known of the input."""
    if moments is None or moments.products is None:
        return np.eye(terms)
    found: np.ndarray = moments.products.astype(np.float64) / max(1, moments.count)
    damping = DAMPING * float(np.mean(np.diag(found)))
    found[np.diag_indices_from(found)] += damping if damping > 0 else 1.0
    return found


def spectrum(weight: np.ndarray, moments: np.ndarray) -> Spectrum:
    """Of W `(N, K)` on rows with second moments `(K, K)`; the smaller of the two problems is solved."""
    outputs, terms = weight.shape
    if outputs <= terms:
        energies, vectors = _eigen(weight @ moments @ weight.T)
        return Spectrum(vectors, energies)
    factor = scipy.linalg.cholesky(moments, lower=True, check_finite=False)
    whitened = weight @ factor
    energies, inner = _eigen(whitened.T @ whitened)
    # Directions that hold nothing stay zero: what is divided by nothing would be noise.
    kept = energies > SMALLEST_SHARE * energies[0]
    lengths = np.sqrt(np.where(kept, energies, 1.0))
    return Spectrum(np.where(kept, whitened @ inner / lengths, 0.0), energies)


def input_directions(unfolded: np.ndarray, moments: np.ndarray, rank: int) -> np.ndarray:
    """`(r, C)`: the best r mixtures of C inputs, of second moments `(C, C)`, for a weight unfolded to `(C, M)`."""
    factor = scipy.linalg.cholesky(moments, lower=True, check_finite=False)
    whitened = factor.T @ unfolded
    best = _eigen(whitened @ whitened.T)[1][:, :rank]
    mixtures: np.ndarray = scipy.linalg.solve_triangular(factor.T, best, lower=False, check_finite=False).T
    mixtures /= np.linalg.norm(mixtures, axis=1, keepdims=True).clip(min=1e-30)
    return mixtures


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric matrix without negative ones, falling, and its vectors as columns."""
    # By divide and conquer: half the time of the default at 3072 x 3072.
    values, vectors = scipy.linalg.eigh(matrix, check_finite=False, driver="evd", overwrite_a=True)
    return values[::-1].clip(min=0), np.ascontiguousarray(vectors[:, ::-1])


def best_behind(weight: np.ndarray, reached: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """B `(N, P)` for which B F comes closest to W `(N, K)`, the first factor F `(P, K)` given.

    `reached` is F H `(P, K)`, `inner` F H F^T `(P, P)`. Least squares.
    """
    damped = inner + np.eye(len(inner)) * (SOLVABLE * float(np.mean(np.diag(inner))) or 1.0)
    fitted: np.ndarray = scipy.linalg.solve(damped, reached @ weight.T, assume_a="pos", check_finite=False).T
    return fitted
