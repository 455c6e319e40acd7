"""Choices that the quantization passes make by time and fidelity, repeated from the manifest to the same bytes."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.passes.quantizing import apply_pass, random_images, replayed
from worker.engine import fidelity, pass_contract
from worker.engine.int8 import static_form
from worker.engine.int8.choosing import NO_TIME, Choice
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile
from worker.engine.preparation import operator_counts
from worker.engine.sessions import run_session
from worker.passes import quantize_dynamic


def test_choices_of_timing_are_replayed_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool left in float keeps the range of what it reads: calibrated by itself it would have another."""

    def chosen(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
        return Choice(everything.without(["pool", "depthwise"], "slower here"))

    monkeypatch.setattr(static_form, "choose_placement", chosen)
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(16)})
    again = replayed(result, tmp_path / "again", networks.convnet(), {"image": random_images(16)})
    assert again.modified
    assert again.model.sha256() == result.model.sha256()
    assert again.manifest["replay"] == result.manifest["replay"]


def test_nodes_given_back_to_float_are_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    # All of the network keeps 47 dB, half of it 52.
    asked = {"placement": "kernels", "reduce_range": True, "fidelity_floor_db": 50}
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(16)}, **asked)
    assert result.modified
    assert result.manifest["replay"]["given_back"]
    again = replayed(result, tmp_path / "again", networks.convnet(), {"image": random_images(16)})
    assert again.model.sha256() == result.model.sha256()


class _Calls:
    """Counts the calls that fidelity is measured by, from the phase on in which the job's time ends."""

    def __init__(self, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._last, self._late = 0, last, 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self._late)
        monkeypatch.setattr(pass_contract, "time", clock)
        monkeypatch.setattr(fidelity, "run_session", self._run)

    def phase(self, name: str) -> None:
        if name == self._last:
            self._late, self.count = 1e6, 0

    def _run(self, *arguments: Any) -> list[Any]:
        self.count += 1
        return run_session(*arguments)


@pytest.mark.parametrize(
    ("last", "calls", "plain"),
    [
        # Of one method of ranges, and whether the floor holds: of both files a call each.
        pytest.param("comparing", 4, True, id="at the ranges"),
        pytest.param("rounding", 2, True, id="at the rounding"),
        pytest.param("checking", 2, False, id="at the check"),
    ],
)
def test_an_int8_file_is_made_whenever_time_ends_behind_calibration(
    last: str, calls: int, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow model would be stopped with nothing delivered, for a hundred calls that nobody waited for."""
    counted = _Calls(last, monkeypatch)
    asked = {"placement": "kernels", "reduce_range": True, "deadline": time.monotonic() + 1e5, "phase": counted.phase}
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(16)}, **asked)
    assert result.modified
    assert counted.count == calls
    assert any("weights were rounded plainly" in note for note in result.notes) is plain
    assert result.manifest["replay"]["input_samples"] == (0 if plain else 16)
    monkeypatch.undo()
    again = replayed(result, tmp_path / "again", networks.convnet(), {"image": random_images(16)})
    assert again.model.sha256() == result.model.sha256()


def test_products_left_in_float_are_replayed_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products share a conversion, the third is left in float; and every node with weights is accounted for."""

    def chosen(_prepared: ModelFile, everything: Placement, *_rest: Any) -> Choice:
        return Choice(everything.without(["query"], "slower here"))

    monkeypatch.setattr(quantize_dynamic, "choose_placement", chosen)
    tokens = {"tokens": np.random.default_rng(0).integers(0, 50, (4, 6))}
    result = apply_pass("quantize_dynamic", networks.attention_block(), tmp_path, tokens)
    again = replayed(result, tmp_path / "again", networks.attention_block(), tokens)
    assert again.model.sha256() == result.model.sha256()
    counts = operator_counts(result.model.structure())
    assert (counts["MatMulIntegerToFloat"], counts["DynamicQuantizeMatMul"], counts["MatMul"]) == (2, 1, 3)
    account = {layer.name: layer for layer in result.layers}
    assert {name for name, layer in account.items() if layer.planned == "int8"} == {"key", "value", "out"}
    assert account["query"].reason == "slower here"
    # Weights and activations in 8 bits over ranges of their own: 30 dB a product, and one stands behind others.
    assert all((account[name].sqnr_db or 0) > 20 for name in ("key", "value", "out"))
    # Alone, each loses less at the outputs than all of them do.
    together = min(layer.sqnr_db for layer in account.values() if layer.sqnr_db is not None)
    assert all((account[name].sensitivity_db or 0) >= together for name in ("key", "value", "out"))
    assert all("Integer" in str(account[name].executed) for name in ("key", "value"))


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
@pytest.mark.parametrize("wanted", ["prepared", "original"])
def test_without_anything_in_int8_the_graph_made_ready_may_be_delivered(name: str, wanted: str, tmp_path: Path) -> None:
    """BatchNorm folds into its convolution whether or not that runs in int8."""
    nodes = [node.name for node in networks.convnet().graph.node]
    asked = {"exclude": nodes, "without_int8": wanted}
    result = apply_pass(name, networks.convnet(), tmp_path, {"image": random_images(4)}, **asked)
    assert result.modified is (wanted == "prepared")
    assert ("BatchNormalization" in operator_counts(result.model.structure())) is (wanted == "original")
    again = replayed(result, tmp_path / "again", networks.convnet(), {"image": random_images(4)})
    assert again.model.sha256() == result.model.sha256()


def test_what_gives_up_its_speed_for_fidelity_is_left_in_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the nodes given back, and the rest no longer faster than float."""
    measured = {"float": [1.0] * 5, "rescued": [0.9, 0.95, 0.97, 0.93, 0.99]}
    monkeypatch.setattr(static_form, "measure_candidates", lambda *_: measured)
    monkeypatch.setattr(
        static_form, "choose_placement", lambda _prepared, everything, *_: Choice(everything, {"float": [1.0]})
    )
    asked = {"reduce_range": True, "fidelity_floor_db": 50}
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, {"image": random_images(16)}, **asked)
    assert any("measured 0.95 times as fast as float" in note for note in result.notes)
    assert not result.modified
    again = replayed(result, tmp_path / "again", networks.convnet(), {"image": random_images(16)})
    assert again.model.sha256() == result.model.sha256()


def test_static_without_time_to_measure_is_delivered_and_replayed(tmp_path: Path) -> None:
    """Less is left than timing takes: every node that has an int8 kernel is in int8, and that is said."""
    arrays = {"image": random_images(16)}
    result = apply_pass("quantize_static", networks.convnet(), tmp_path, arrays, deadline=time.monotonic() + 10)
    assert result.modified
    assert NO_TIME in result.notes
    again = replayed(result, tmp_path / "again", networks.convnet(), arrays)
    assert again.model.sha256() == result.model.sha256()
