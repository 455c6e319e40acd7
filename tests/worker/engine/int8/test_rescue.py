"""Where too much is lost, the nodes that lose it stay in float; where enough is kept, nothing is touched."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worker.engine.int8.conftest import Spoiled
from worker.engine import tensor_fidelity
from worker.engine.fidelity import Floor, measure_fidelity
from worker.engine.int8 import rescue as rescuing
from worker.engine.int8.fidelity import layer_sqnr_db
from worker.engine.int8.placement import Placement
from worker.engine.int8.rescue import SENSITIVE, rescue
from worker.engine.int8.sensitivity import most_sensitive_first


def test_the_node_that_loses_is_left_in_float(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(20.0), most_sensitive_first, given)
    assert kept.before.sqnr_db < 5
    # Three products in 8 bits over exact ranges keep well above 25 dB.
    assert kept.after.sqnr_db >= 20
    assert kept.placement.reasons["spoiled"] == SENSITIVE
    assert "last" in kept.placement.quantized
    assert min(kept.sensitivities_db, key=lambda name: kept.sensitivities_db[name]) == "spoiled"
    assert measure_fidelity(file, kept.model, given, np.arange(32)) == kept.after
    (words,) = kept.in_words()
    assert "were left in float" in words
    assert "short of" not in words


def test_a_model_above_the_floor_is_not_touched(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(file, everything, made, build, Floor(-50.0), most_sensitive_first, given)
    assert kept.model == made
    assert kept.placement is everything
    assert kept.in_words() == []


def test_without_time_nothing_is_given_back_and_that_is_said(spoiled: Spoiled) -> None:
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    kept = rescue(
        file, everything, made, build, Floor.of(20.0, 0.01), most_sensitive_first, replace(given, deadline=0.0)
    )
    assert (kept.model, kept.placement, kept.gives_back) == (made, everything, False)
    (words,) = kept.in_words()
    assert f"({kept.before.in_words()}, not 20 dB and 97.0 % agreement)" in words
    assert "no time was left" in words


def test_what_is_given_back_is_said_beside_what_is_still_short(
    spoiled: Spoiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was time to measure two nodes of three, and no placement with the third in int8 keeps as much as this."""
    file, everything, build, given = spoiled
    made = build(everything, given.scratch / "built")
    measured = {"spoiled": 0.0, "first": 20.0}
    monkeypatch.setattr(rescuing, "sensitivities_db", lambda *_arguments: measured)
    kept = rescue(file, everything, made, build, Floor(90.0), most_sensitive_first, given)
    assert kept.placement.quantized == {"last"}
    (words,) = kept.in_words()
    assert words.endswith(f"were left in float ({kept.after.in_words()}, still short of 90 dB).")


def test_what_gains_nothing_is_not_said_to_be_left_in_float(spoiled: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the two that were measured runs in int8 here."""
    file, everything, build, given = spoiled
    alone = Placement(everything.units, frozenset(["spoiled"]))
    monkeypatch.setattr(rescuing, "sensitivities_db", lambda *_arguments: {"first": 0.0, "last": 20.0})
    kept = rescue(file, alone, build(alone, given.scratch / "built"), build, Floor(20.0), most_sensitive_first, given)
    assert (kept.placement, kept.gives_back) == (alone, False)
    (words,) = kept.in_words()
    assert words.endswith("leaving nodes in float kept no more.")


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
    kept = rescue(file, alone, build(alone, given.scratch / "built"), build, Floor(20.0), most_sensitive_first, given)
    assert kept.placement.quantized == frozenset()
    assert kept.after.sqnr_db >= 20
