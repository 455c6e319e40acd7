"""Between int8 and float: how faithful a form has to be is found by trying."""

from dataclasses import replace

import pytest

from tests.worker.engine.search.grounds import LATENCY, Measure, measured, searched
from worker.engine.search.proposals import Proposal, Trial, best_of


def needing(floor_db: float) -> Measure:
    """Static int8 breaks the contract; forms that keep so many decibels hold it, and are slower the more they keep."""

    def measure(proposal: Proposal) -> Trial:
        kept = proposal.settings.get("floor_db", 12.0)
        if proposal.family not in ("static", "mixed"):
            return measured(proposal, 1.0)
        return replace(measured(proposal, 3.0 - kept / 30, drop=0.0 if kept >= floor_db else 0.1), sqnr_db=kept)

    return measure


@pytest.mark.parametrize(
    ("needed", "floors"),
    [(15.0, [18.0, 15.0]), (27.0, [18.0, 30.0, 24.0, 27.0]), (99.0, [18.0, 30.0, 48.0])],
    ids=["a little more", "more", "more than there is"],
)
def test_between_int8_and_float_is_found_what_holds(needed: float, floors: list[float]) -> None:
    trials = searched(needing(needed))
    assert [one.proposal.settings["floor_db"] for one in trials if one.proposal.family == "mixed"] == floors
    best = best_of(trials, LATENCY)
    assert best is not None
    if needed <= max(floors):
        assert best.proposal.recipe[-1].model_dump()["fidelity_floor_db"] == min(one for one in floors if one >= needed)


def test_where_int8_holds_no_node_goes_back_to_float_for_it() -> None:
    assert not [one for one in searched(needing(12.0)) if one.proposal.family == "mixed"]


def test_a_floor_that_cannot_be_built_ends_the_ladder() -> None:
    def measure(proposal: Proposal) -> Trial:
        if proposal.family == "mixed":
            return Trial(proposal, 5.0, failure="`quantize_static` changed nothing.")
        return needing(99.0)(proposal)

    assert len([one for one in searched(measure) if one.proposal.family == "mixed"]) == 1
