"""Where too much is lost, the nodes that lose it stay in float; where enough is kept, nothing is touched."""

import numpy as np
import pytest

from tests.worker.engine.int8.conftest import Spoiled
from worker.engine import tensor_fidelity
from worker.engine.fidelity import Floor, measure_fidelity
from worker.engine.int8.fidelity import layer_sqnr_db
from worker.engine.int8.placement import Placement
from worker.engine.int8.rescue import SENSITIVE, rescue


def test_the_node_that_loses_is_left_in_float(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(20.0), given)
    assert kept.before.sqnr_db < 5
    # Three products in 8 bits over exact ranges keep well above 25 dB.
    assert kept.after.sqnr_db >= 20
    assert kept.placement.reasons["spoiled"] == SENSITIVE
    assert "last" in kept.placement.quantized
    assert min(kept.sensitivities_db, key=lambda name: kept.sensitivities_db[name]) == "spoiled"
    assert measure_fidelity(file, kept.model, given, np.arange(32)) == kept.after


def test_a_model_above_the_floor_is_not_touched(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(-50.0), given)
    assert kept.model == made
    assert kept.placement is everything
    assert kept.in_words() == []


def test_an_account_by_layer_shows_where_it_was_lost(spoiled: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    found = layer_sqnr_db(file, made, everything, given, 8)
    assert found["spoiled"] < 5
    assert set(found) == {"first", "spoiled", "last"}
    # Large models hand out a few tensors at a time.
    monkeypatch.setattr(tensor_fidelity, "EXPOSED_ELEMENTS", 1)
    assert layer_sqnr_db(file, made, everything, given, 8) == found


def test_where_nothing_holds_everything_is_left_in_float(
    spoiled: Spoiled,
) -> None:
    """The floor is a promise: one node too many in 8 bits is as bad as all."""
    file, everything, build, given = spoiled
    alone = Placement(everything.units, frozenset(["spoiled"]))
    kept = rescue(file, alone, build(alone, given.scratch / "built"), build, Floor(20.0), given)
    assert kept.placement.quantized == frozenset()
    assert kept.after.sqnr_db >= 20
