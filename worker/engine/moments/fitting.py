"""Least squares from moments: the weight with which a product comes closest to results that are wanted of it.

W' = Y U^T (U U^T + l I)^-1, and with a bias the same of U and Y less their means. l pulls towards the weight as it was,
the more the fewer rows there are.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from worker.engine.moments.moments import CrossMoments
from worker.engine.moments.reading import ROWS_A_TERM

# Of the mean power of a term.
PULL = 0.01


@dataclass(frozen=True)
class Fit:
    """`rows` `(C, K)` float64; `shift` `(C,)`, what has to be added to their product for the mean to be right."""

    rows: np.ndarray
    shift: np.ndarray


def fit_rows(rows: np.ndarray, moments: CrossMoments, kept: np.ndarray, *, shifts: bool) -> Fit | None:
    """In the place of `rows` `(C, K)`, for the `kept` `(C,)` of the channels of the results.

    None where the moments do not determine anything, as where values are not finite. Without `shifts` the product alone
    has to give the results.
    """
    if not moments.inputs.count or moments.inputs.products is None:
        return None
    count = moments.inputs.count
    inner = moments.inputs.products.astype(np.float64) / count
    cross = moments.cross[kept].astype(np.float64) / count
    mean, wanted = moments.inputs.mean[0], moments.total[kept] / count
    if shifts:
        inner, cross = inner - np.outer(mean, mean), cross - np.outer(wanted, mean)
    power = float(np.mean(np.diag(inner)))
    if not (np.isfinite(power) and np.isfinite(cross).all()) or power <= 0:
        return None
    pull = PULL * power * max(1.0, ROWS_A_TERM * rows.shape[1] / count)
    left = inner + np.eye(len(inner)) * pull
    try:
        made = scipy.linalg.solve(left, (cross + pull * rows).T, assume_a="pos", check_finite=False).T
    except np.linalg.LinAlgError:  # of terms that hardly vary less is left than was rounded
        return None
    shift = wanted - made @ mean if shifts else np.zeros(len(rows))
    return Fit(made, shift) if np.isfinite(made).all() and np.isfinite(shift).all() else None
