"""Each node in int8 is tried alone for the report, as far as there is time."""

import time
from dataclasses import replace

import pytest

from tests.worker.engine.int8.conftest import Spoiled
from worker.engine.int8.sensitivity import account

NAMES = {"first", "spoiled", "last"}


def test_every_node_in_int8_is_tried_alone(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    found, short = account({}, file, everything, build, given)
    assert short == []
    assert found.keys() == NAMES
    assert found["spoiled"] < 5
    # One product in 8 bits over an exact range keeps well above 25 dB.
    assert found["first"] > 25
    assert found["last"] > 25


def test_what_is_known_is_not_tried_again(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    known = dict.fromkeys(NAMES, 12.5)
    assert account(known, file, everything, build, given) == (known, [])


@pytest.mark.parametrize("left", [pytest.param(0.0, id="none-left"), pytest.param(-5.0, id="over")])
def test_without_time_the_account_says_that_it_is_short(spoiled: Spoiled, left: float) -> None:
    file, everything, build, given = spoiled
    hurried = replace(given, deadline=time.monotonic() + left)
    found, short = account({}, file, everything, build, hurried)
    assert found == {}
    assert short == [
        "Sensitivity was measured of 0 of 3 nodes in int8, from all over the graph: the job's time ran short."
    ]
    # What is delivered does not depend on it.
    assert not hurried.haste.cut_short
