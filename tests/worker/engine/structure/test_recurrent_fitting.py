"""Recurrent layers make up for hidden units and inputs that go, as far as those that stay say the same."""

from pathlib import Path

import numpy as np
import pytest

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.engine.structure.masking import saved, structure_of
from tests.worker.networks import normal
from worker.engine.feeds import match_arrays
from worker.engine.fidelity import measure_fidelity
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.structure.cutting import cut
from worker.engine.structure.recurrent_fitting import refitted
from worker.passes.registry import load_pass

IN, HALF, OUT, STEPS, SAMPLES = 5, 6, 3, 7, 64
HIDDEN = 2 * HALF
# What float32 and the pull towards the weights as they were leave of twins.
TWINS_DB = 25.0
FITTED, UNSEEN = 48, np.arange(48, SAMPLES)
LAYERS = {
    "lstm": ("LSTM", "a, h, s", "", 4, 1),
    "lstm-both-ways": ("LSTM", "a, h, s", 'direction = "bidirectional", ', 4, 2),
    "gru": ("GRU", "a, h", "", 3, 1),
    "gru-reset-behind-the-product": ("GRU", "a, h", "linear_before_reset = 1, ", 3, 1),
    "rnn": ("RNN", "a, h", "", 1, 1),
}


def _twins(directions: int, gates: int, columns: int, seed: int) -> np.ndarray:
    """In every gate the units of the second half have the weights of the first."""
    half = normal(directions, gates, HALF, columns, seed=seed) * np.float32(0.5)
    return np.concatenate([half, half], 2).reshape(directions, gates * HIDDEN, columns)


def _two_layers(kind: str, made: str, options: str, gates: int, directions: int) -> dict[str, object]:
    """A layer of twins, and another behind it that reads them; of the second the last state is the result."""
    text = (
        f"g (float[N,{STEPS},{IN}] x) => (float[N,{OUT}] y) {{ t = Transpose<perm = [1, 0, 2]>(x)"
        f" {made} = {kind}<{options}hidden_size = {HIDDEN}>(t, uw, ur, ub) e = ReduceMean<keepdims = 0>(a, i)"
        f" b, k = RNN<hidden_size = {HIDDEN}>(e, vw, vr, vb) l = Squeeze(k, o) y = Gemm<transB = 1>(l, c) }}"
    )
    constants = {
        "uw": _twins(directions, gates, IN, 1),
        "ur": _twins(directions, gates, HIDDEN, 2),
        "ub": _twins(directions, 2 * gates, 1, 3)[..., 0],
        "vw": normal(1, HIDDEN, HIDDEN, seed=4),
        "vr": normal(1, HIDDEN, HIDDEN, seed=5) * np.float32(0.3),
        "vb": normal(1, 2 * HIDDEN, seed=6),
        "c": normal(OUT, HIDDEN, seed=7),
        "i": np.array([1], np.int64),
        "o": np.array([0], np.int64),
    }
    return {"text": text, "opset": 18, **constants}


def _context(model: ModelFile, folder: Path) -> PassContext:
    feeds = match_arrays(inputs_of(model.structure()), {"x": normal(SAMPLES, STEPS, IN, seed=8)}, "data")
    folder.mkdir()
    return PassContext(folder, feeds, seed=0, threads=1)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_hidden_units_that_have_twins_are_made_up_for(layer: tuple[str, str, str, int, int], tmp_path: Path) -> None:
    model = saved(networks.prepared(**_two_layers(*layer)), tmp_path / "model")
    context = _context(model, tmp_path / "scratch")
    structure = structure_of(model, context.feeds.call(np.arange(2)).feed, tmp_path / "sizes")
    group = structure.groups[0]
    assert {part.slot.weight.name for part in group.consumers} == {"ur", "vw"}
    gone = group.roots[np.arange(HALF)]
    fitted = refitted(model, structure, gone, context, FITTED, tmp_path / "refitted")
    assert fitted is not None
    as_cut, made = (cut(one, structure, gone, tmp_path / f"cut-{one.path.parent.name}") for one in (model, fitted))
    before, after = (measure_fidelity(model, one, context, UNSEEN).sqnr_db for one in (as_cut, made))
    assert after > max(TWINS_DB, before + 10)


def test_where_no_layer_reads_what_goes_nothing_is_fitted(tmp_path: Path) -> None:
    model = saved(networks.prepared(**_two_layers(*LAYERS["lstm"])), tmp_path / "model")
    context = _context(model, tmp_path / "scratch")
    structure = structure_of(model, context.feeds.call(np.arange(2)).feed, tmp_path / "sizes")
    assert refitted(model, structure, np.zeros(0, np.int64), context, FITTED, tmp_path / "refitted") is None


def test_what_is_cut_by_importance_is_made_up_for(tmp_path: Path) -> None:
    """The whole pass: half of the hidden units, each a twin of another, are gone at no cost to speak of."""
    model = saved(networks.prepared(**_two_layers(*LAYERS["lstm"])), tmp_path / "model")
    context = _context(model, tmp_path / "scratch")
    behind = [node.name for node in model.structure().graph.node if node.op_type == "RNN"]
    arguments = {"pass": "prune_structured", "ratio": 0.5, "multiple": 1, "exclude": behind}
    config = CATALOGUE["prune_structured"].config.model_validate(arguments)
    result = load_pass("prune_structured")(model, config, context)
    assert measure_fidelity(model, result.model, context, UNSEEN).sqnr_db > TWINS_DB


@pytest.mark.parametrize("operand", ["uw", "ur"])
@pytest.mark.parametrize("way", ["Identity", "Transpose<perm = [0, 2, 1]>"], ids=["by-identity", "transposed"])
def test_weights_that_are_no_operand_as_they_stand_are_left_as_they_are_cut(
    way: str, operand: str, tmp_path: Path
) -> None:
    given = _two_layers(*LAYERS["lstm"])
    given["text"] = str(given["text"]).replace("{ t =", f"{{ {operand}0 = {way}({operand}) t =")
    given["text"] = str(given["text"]).replace(f"{operand}, u", f"{operand}0, u")
    if way != "Identity":
        given[operand] = np.ascontiguousarray(np.swapaxes(np.asarray(given[operand]), 1, 2))
    model = saved(networks.prepared(**given), tmp_path / "model")
    context = _context(model, tmp_path / "scratch")
    config = CATALOGUE["prune_structured"].config.model_validate({"pass": "prune_structured", "ratio": 0.5})
    result = load_pass("prune_structured")(model, config, context)
    assert result.modified
    assert measure_fidelity(model, result.model, context, UNSEEN).sqnr_db > 0
