"""A cancel and the end of an attempt at one moment: one of the two comes first, and both are told the truth."""

from uuid import UUID

import pytest

from app.database import Database
from tests.faults.storm.racing import ENDINGS, race


def test_a_cancel_that_races_the_end_of_an_attempt(database: Database, workspace_id: UUID) -> None:
    races = race(database, workspace_id, rounds=60, seed=0)
    assert races.complaints == []
    assert races.outcomes.total() == 60


@pytest.mark.long
def test_a_thousand_of_them_in_either_order(database: Database, workspace_id: UUID) -> None:
    races = race(database, workspace_id, rounds=1000, seed=1)
    assert races.complaints == []
    # Either came first, of each ending.
    assert len(races.outcomes) == 2 * len(ENDINGS), races.outcomes
