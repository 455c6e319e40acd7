"""What passes find out on their way, kept for later searches: scores of units, ranges, times of kernels."""

from collections.abc import Hashable
from typing import Any

import numpy as np

from worker.runner.search.stock import Stock

Key = tuple[Hashable, ...]


class Findings(dict[Key, Any]):
    """Those of one search, with what earlier ones left of the same. Rows of numbers by name are kept, nothing else."""

    def __init__(self, stock: Stock) -> None:
        super().__init__()
        self._stock = stock

    def __contains__(self, key: object) -> bool:
        if super().__contains__(key):
            return True
        if not isinstance(key, tuple):
            return False
        found = self._stock.find_rows(key)
        if found is not None:
            super().__setitem__(key, found)
        return found is not None

    def __setitem__(self, key: Key, value: Any) -> None:
        super().__setitem__(key, value)
        # A table that is to be filled is none yet.
        if isinstance(value, dict) and value and all(map(_is_row, value.values())):
            self._stock.keep_rows(key, value)


def _is_row(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1
