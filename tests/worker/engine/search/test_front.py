"""Which candidates nothing is better than, and which of them are measured once more."""

from dataclasses import dataclass, field

import pytest

from tests.worker.engine.search.grounds import LATENCY, trial
from worker.engine.search.front import finalists, pareto_front
from worker.engine.search.proposals import Trial


@dataclass
class Case:
    id: str
    trials: list[Trial]
    front: list[str] = field(default_factory=list)


CASES = [
    Case("one alone", [trial("a")], ["a"]),
    Case("slower and larger", [trial("a", 2.0, 2.0), trial("b", 1.5, 1.5)], ["a"]),
    Case("slower and smaller", [trial("a", 2.0, 2.0), trial("b", 1.5, 4.0)], ["a", "b"]),
    Case("faster, and loses more", [trial("a", 2.0, 2.0), trial("b", 3.0, 2.0, 0.005)], ["a", "b"]),
    # Two timings of the same file spread by as much.
    Case("faster by a hundredth, and loses more", [trial("a", 2.0), trial("b", 2.02, drop=0.005)], ["a"]),
    Case("the same twice", [trial("a", 2.0), trial("b", 2.0)], ["a"]),
    Case("one that failed", [trial("a"), trial("b", 9.0, failure="It ended.")], ["a"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_front_holds_what_nothing_is_better_than(case: Case) -> None:
    assert [one.name for one in pareto_front(case.trials)] == case.front


def test_finalists_begin_with_the_best_that_holds_and_end_with_the_nearest_that_does_not() -> None:
    trials = [
        trial("graph", 1.1),
        trial("static", 3.0, 4.0, 0.002),
        trial("pruned", 5.0, 8.0, 0.02),
        trial("ruined", 9.0, 9.0, 0.8),
    ]
    assert [one.name for one in finalists(trials, LATENCY)] == ["static", "graph", "pruned"]


def test_what_the_best_beat_on_few_samples_is_there_should_it_fail_on_others() -> None:
    trials = [
        trial("static", 2.0, 4.0),
        trial("a half", 3.0, 8.0, family="pruned"),
        trial("a third", 4.0, 12.0, family="pruned"),
    ]
    assert [one.name for one in pareto_front(trials)] == ["a third"]
    assert [one.name for one in finalists(trials, LATENCY)] == ["a third", "a half", "static"]


def test_however_many_are_bolder_the_best_that_is_likely_to_be_accepted_is_there() -> None:
    bold = [trial(f"bold {number}", 5.0 + number, drop=0.009, family="pruned") for number in range(4)]
    trials = [trial("static", 2.0), trial("a half", 3.0, drop=0.001, family="pruned"), *bold]
    names = [one.name for one in finalists(trials, LATENCY)]
    assert names[:4] == ["a half", "static", "bold 3", "bold 2"]


def test_should_all_bold_ones_fail_those_that_lose_less_are_there() -> None:
    """Cuts that training brought near the original again; each loses more than the next shallower one."""
    left = {5: 0.004, 6: 0.0045, 8: 0.0042, 10: 0.004, 30: 0.0018, 50: 0.001, 70: 0.0015}
    trials = [trial(f"{share} %", 100 / share, 100 / share, drop, "taught") for share, drop in left.items()]
    names = [one.name for one in finalists(trials, LATENCY)]
    assert names[:4] == ["5 %", "6 %", "8 %", "10 %"]
    assert names[4:6] == ["30 %", "50 %"]


def test_what_breaks_the_contract_and_gains_nothing_is_no_finalist() -> None:
    trials = [trial("static", 3.0, 4.0), trial("4 bits", 1.0, 7.0, 0.5)]
    assert [one.name for one in finalists(trials, LATENCY)] == ["static"]
