"""Input at the edge, on files whose answers there are numbers of classes, or no numbers at all."""

from pathlib import Path

import pytest

from app.jobs.report import DeploymentCheck, EdgeInput
from tests.worker import networks
from worker.engine.deployment.cases import Ground, value_cases
from worker.engine.deployment.edges import measure
from worker.engine.deployment.judging import judge_edges
from worker.engine.deployment.requests import Edges
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.stored_arrays import ArrayStore

X = networks.normal(5, 4)


def checked(folder: Path, outputs: str, original: str, candidate: str) -> tuple[DeploymentCheck, list[EdgeInput]]:
    """`x` (N, 4) to `outputs`, by each of two bodies."""
    first, second = (
        networks.prepared(f"network (float[N, 4] x) => ({outputs}) {{ {body} }}") for body in (original, candidate)
    )
    files = [ModelFile(networks.save(model, folder / str(index))) for index, model in enumerate((first, second))]
    inputs = inputs_of(first)
    data = match_arrays(inputs, {"x": X}, "data")
    ground = Ground(inputs, {"x": X}, data, {}, first, ArrayStore(folder / "store"))
    request = Edges(
        original=str(files[0].path), candidate=str(files[1].path), cases=value_cases(ground), threads=1, seconds=30
    )
    return judge_edges("extreme_values", measure(request))


@pytest.mark.parametrize(("last", "outcome"), [(0, "passed"), (1, "failed")], ids=["same", "another"])
def test_numbers_of_classes_that_are_others_at_every_edge_fail(tmp_path: Path, last: int, outcome: str) -> None:
    """Of elements that are all the same it takes the last in place of the first."""
    original, candidate = (
        f"c = ArgMax <axis = 1, keepdims = 0, select_last_index = {index}> (x)" for index in (0, last)
    )
    found, inputs = checked(tmp_path, "int64[N] c", original, candidate)
    assert found.outcome == outcome
    assert {one.outcome for one in inputs} == {outcome}
    assert ("far from the original (0.0% agreement)" in found.words) == bool(last)


@pytest.mark.parametrize("candidate", ["y = Div (x, x)", "z = Abs (x) y = Sign (z)"], ids=["same", "finite"])
def test_where_the_original_is_finite_nowhere_nothing_is_compared(tmp_path: Path, candidate: str) -> None:
    found, (zeros, *others) = checked(tmp_path, "float[N, 4] y", "y = Div (x, x)", candidate)
    assert (zeros.outcome, zeros.sqnr_db, zeros.agreement) == ("skipped", None, None)
    assert "the original is not finite anywhere" in zeros.words
    assert {one.outcome for one in others} == {"passed"}
    assert found.words == (
        "Compared with the original in ones, lowest, highest: finite where it is, 200.0 dB or more. "
        "Not finite anywhere in the original: y in zeros. Skipped: zeros."
    )


def test_of_what_the_original_never_holds_on_ordinary_input_only_that_is_said(tmp_path: Path) -> None:
    body = "z = Sub (x, x) y = Div (z, z) k = Abs (x)"
    found, _ = checked(tmp_path, "float[N, 4] y, float[N, 4] k", body, body)
    assert found.outcome == "passed"
    assert "Not finite anywhere in the original: y in ordinary, y in zeros" in found.words
    assert "was not judged" not in found.words


def test_what_is_empty_on_ordinary_input_is_not_judged_and_is_said_not_to_be(tmp_path: Path) -> None:
    """As boxes, of which a detector finds none in the samples at hand."""
    boxes = (
        "o = Constant <value_float = 1.0> () e = Equal (x, o) s = Constant <value_ints = [-1]> () m = Reshape (e, s)"
    )
    original, candidate = (f"{boxes} k = Abs (x) b = Compress (x, m) y = {last} (b)" for last in ("Identity", "Neg"))
    found, _ = checked(tmp_path, "float[M] y, float[N, 4] k", original, candidate)
    assert found.outcome == "passed", found.words
    assert "How much of y stays was not judged: on ordinary input little of it does, or it holds nothing" in found.words
    assert "whole numbers" not in found.words


def test_an_edge_at_which_nothing_is_found_is_the_same_where_no_output_is_a_float(tmp_path: Path) -> None:
    """As numbers of classes, one a box."""
    body = (
        "o = Constant <value_float = 1.0> () e = Equal (x, o) s = Constant <value_ints = [-1]> () m = Reshape (e, s) "
        "n = Not (m) b = Compress (x, n) y = Cast <to = 7> (b)"
    )
    found, inputs = checked(tmp_path, "int64[M] y", body, body)
    ones = next(one for one in inputs if one.name == "ones")
    assert (found.outcome, ones.outcome) == ("passed", "passed")
    assert "no output is a tensor" not in found.words + ones.words
