"""How much of macro-F1 hangs on one sample: of a rare class, a great deal.

It is the mean over classes: a sample that is lost weighs about 1 / (2 x classes x samples of its class), and as much by
the class that it is taken for; and not 1 / samples, as where samples are counted.
"""

import numpy as np

from worker.engine.evaluation.bootstrap import CHUNK_WEIGHTS, MacroF1
from worker.engine.evaluation.requests import Influence


def influence_on(statistic: MacroF1) -> Influence | None:
    """Of the sample that can take most of it: all that is right in it goes, to the other class that it harms most.

    None where nothing is right, so that nothing can be lost. Classes that occur in neither labels nor predictions are
    none of it.
    """
    samples, rows = np.unique(statistic.owners, return_inverse=True)
    elements = np.bincount(rows, statistic.seen, len(samples)) / 2
    named = statistic.classes >= 0
    names, codes = np.unique(statistic.classes[named], return_inverse=True)
    rows, hits = rows[named], statistic.hits[named].astype(np.float64)
    right, seen = np.bincount(codes, hits, len(names)), np.bincount(codes, statistic.seen[named], len(names))
    if not right.any():
        return None
    f1 = 2 * right / seen
    # The slope of F1 in its hits. That it falls faster the more is lost is in the bound: see `acceptance`.
    lost = np.bincount(rows, hits * ((2 - f1) / seen)[codes], len(samples))
    most = max(
        float(np.max(lost[part] + _harm(part, elements, (rows, codes, hits), f1, seen)))
        for part in _parts(len(samples), len(names))
    )
    found = np.bincount(codes, hits > 0, len(names))
    # Not the one that is right least often: of a frequent class each sample weighs little, however many are wrong.
    rarest = int(np.argmin(np.where(found > 0, seen, np.inf)))
    return Influence(most=most / len(names), rarest_class=int(names[rarest]), rarest_samples=int(found[rarest]))


def _parts(samples: int, classes: int) -> list[slice]:
    step = max(1, CHUNK_WEIGHTS // classes)
    return [slice(start, min(start + step, samples)) for start in range(0, samples, step)]


def _harm(
    part: slice,
    elements: np.ndarray,
    counted: tuple[np.ndarray, np.ndarray, np.ndarray],
    f1: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """What samples `(P,)` take from the class that each harms most, if what is not right in that is taken for it.

    `counted` `(M,)` are samples, classes and hits.
    """
    rows, codes, hits = counted
    inside = (rows >= part.start) & (rows < part.stop)
    free = np.repeat(elements[part, None], len(f1), axis=1)
    free[rows[inside] - part.start, codes[inside]] -= hits[inside]
    return np.asarray(np.max(f1 * free / (seen + free), axis=1))
