"""Which candidates nothing is better than, and which of them are measured once more."""

from dataclasses import dataclass, field

import pytest

from tests.worker.engine.search.grounds import LATENCY, SIZE, trial
from worker.engine.search.front import MOST_STEPS, _ends, finalists, pareto_front, steps
from worker.engine.search.proposals import Trial

ALLOWED = 0.01


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
    Case("the same twice, and one that gains a little more", [trial("a", 2.0), trial("b", 2.03)], ["b"]),
    Case("faster by a two hundredth, and four times as large", [trial("a", 2.06), trial("b", 2.05, 4.0)], ["b"]),
    # Each is the same as the next, and the first is not the same as the last.
    Case("slowly faster", [trial("a", 2.0), trial("b", 2.03), trial("c", 2.06)], ["c"]),
    Case(
        "slowly faster, for more lost",
        [trial("a", 2.0), trial("b", 2.03, drop=0.001), trial("c", 2.06, drop=0.002)],
        ["a", "c"],
    ),
    Case("one that failed", [trial("a"), trial("b", 9.0, failure="It ended.")], ["a"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_front_holds_what_nothing_is_better_than(case: Case) -> None:
    assert [one.name for one in pareto_front(case.trials)] == case.front


@dataclass
class Steps:
    """`taken`: what is tested, in this order, where one in a hundred is allowed."""

    id: str
    trials: list[Trial]
    taken: list[str]


STEPS = [
    Steps("nothing that gains", [trial("a", 1.0), trial("b", 0.9)], []),
    Steps("nothing that holds", [trial("a", 2.0, drop=0.02)], []),
    Steps("safer before bolder", [trial("b", 3.0, drop=0.008), trial("a", 2.0)], ["a", "b"]),
    Steps("of like risk the boldest last", [trial("b", 3.0, drop=0.002), trial("a", 2.0, drop=0.004)], ["a", "b"]),
    # Were it tested it could fail, and end the tests of those behind it.
    Steps("none that gains no more than a safer one", [trial("a", 2.0), trial("b", 2.0, drop=0.008)], ["a"]),
    Steps("a hundredth more is no step", [trial("a", 2.0), trial("b", 2.02, drop=0.008)], ["a"]),
    Steps("of like gain the less risky", [trial("a", 2.0), trial("b", 2.02, drop=0.001)], ["a"]),
    Steps("of like gain the less risky, though it gains less", [trial("b", 2.0, drop=0.001), trial("a", 2.02)], ["a"]),
    # One that came out better by chance changed as many answers as it has to lose.
    Steps(
        "few answers changed before many",
        [trial("b", 3.0, drop=-0.006, drop_below=0.009), trial("a", 2.0, drop=0.003, drop_below=0.003)],
        ["a", "b"],
    ),
    # Beside an original whose error is zero, any growth is beyond what a number holds.
    Steps(
        "an error that grew from nothing last", [trial("b", 2.0, drop=1e308, holds=True), trial("a", 1.5)], ["a", "b"]
    ),
]


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.id)
def test_finalists_are_tested_step_by_step(case: Steps) -> None:
    assert [one.name for one in steps(case.trials, LATENCY, ALLOWED)] == case.taken


def test_of_many_steps_few_are_taken_and_the_highest_is_among_them() -> None:
    trials = [trial(f"{number}", 1.1**number, drop=0.0001 * number) for number in range(1, 20)]
    names = [one.name for one in steps(trials, LATENCY, ALLOWED)]
    assert 3 <= len(names) <= MOST_STEPS
    assert names == sorted(names, key=int)
    assert names[-1] == "19"


def test_finalists_are_the_steps_and_the_nearest_that_breaks_the_contract() -> None:
    trials = [
        trial("graph", 1.1),
        trial("static", 3.0, 4.0, 0.002),
        trial("pruned", 5.0, 8.0, 0.02),
        trial("ruined", 9.0, 9.0, 0.8),
    ]
    assert [one.name for one in finalists(trials, LATENCY, ALLOWED)] == ["graph", "static", "pruned"]


def test_what_a_cut_beat_on_few_samples_is_there_should_it_fail_on_others() -> None:
    trials = [
        trial("static", 2.0, 4.0),
        trial("a half", 3.0, 8.0, family="pruned"),
        trial("a third", 4.0, 12.0, family="pruned"),
    ]
    assert [one.name for one in pareto_front(trials)] == ["a third"]
    assert [one.name for one in finalists(trials, LATENCY, ALLOWED)] == ["static", "a half", "a third"]


def test_the_best_plain_method_and_the_front_are_there_though_they_need_no_test() -> None:
    trials = [
        trial("pruned", 4.0, 4.0, family="pruned"),
        trial("static", 2.0, 4.0, 0.006),
        trial("weights", 1.0, 7.0, family="weights"),
    ]
    assert [one.name for one in steps(trials, LATENCY, ALLOWED)] == ["pruned"]
    assert [one.name for one in finalists(trials, LATENCY, ALLOWED)] == ["pruned", "static", "weights"]


def test_the_ends_of_the_front_are_there_whatever_the_objective_is() -> None:
    """Any point of the front may be picked later, and most likely one of these."""
    trials = [
        *(trial(f"cut {number}", 1.1**number, 2.0, 0.0004 * number, family="pruned") for number in range(1, 14)),
        trial("fastest", 9.0, 1.2, 0.0098, likely=False),
        trial("smallest", 0.95, 7.0, 0.009, family="weights"),
        trial("small", 0.97, 6.0, 0.008, family="weights"),
        trial("safest", 0.9, 1.5, -0.001, family="dynamic"),
    ]
    ends = {"fastest", "smallest", "safest"}
    assert ends <= {one.name for one in pareto_front(trials)}
    for weights in (LATENCY, SIZE):
        found = [one.name for one in finalists(trials, weights, ALLOWED)]
        assert ends <= set(found)
        assert len(found) == len(set(found))
    # Nobody measured memory: nothing is the end of it.
    assert [one.name for one in _ends(trials[13:])] == ["fastest", "smallest", "safest"]


def test_what_breaks_the_contract_and_gains_nothing_is_no_finalist() -> None:
    trials = [trial("static", 3.0, 4.0), trial("4 bits", 1.0, 7.0, 0.5)]
    assert [one.name for one in finalists(trials, LATENCY, ALLOWED)] == ["static"]
