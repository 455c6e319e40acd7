"""Work under way while its results are taken up."""

import time
from collections.abc import Iterator
from contextlib import closing
from threading import Barrier

import pytest

from worker.engine.calibration.ahead import ahead


def test_results_come_in_the_order_of_their_items_whichever_is_done_first() -> None:
    def slower_at_first(item: int) -> int:
        time.sleep(0.01 * (3 - item))
        return item

    assert list(ahead(slower_at_first, range(4), 3)) == [0, 1, 2, 3]


def test_so_many_are_under_way_at_once() -> None:
    both = Barrier(2, timeout=30)
    assert len(list(ahead(lambda _: both.wait(), range(4), 2))) == 4


def test_no_item_is_asked_for_long_before_its_turn() -> None:
    asked = []

    def items() -> Iterator[int]:
        for item in range(100):
            asked.append(item)
            yield item

    with closing(ahead(abs, items(), 2)) as results:
        assert next(results) == 0
        assert len(asked) == 3


def test_a_failure_comes_in_its_turn() -> None:
    results = ahead(lambda item: 1 // item, [1, 0, 1], 1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
