"""A recipe that names other uploads: a model taught by another, and a smaller one delivered in its place."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import onnxruntime as ort
import pytest

from app.client import Lathe, LatheApiError, Model
from app.client.conversion import write_npz
from tests.worker import networks

ROWS = 300
TEXT = "network (float[N,8] x) => (float[N,4] y) { a = Gemm(x, w) r = Relu(a) y = Gemm(r, v) }"
ODD = "network (float[N,8] z) => (float[N,4] y) { y = Gemm(z, w) }"


def _upload(lathe: Lathe, folder: Path, name: str, text: str = TEXT, **constants: np.ndarray) -> Model:
    path = folder / f"{name}.onnx"
    path.write_bytes(networks.prepared(text, **constants).SerializeToString())
    return lathe.wait_until_ready(lathe.upload_model(path, name=name))


def _distill(**arguments: Any) -> list[dict[str, Any]]:
    return [{"pass": "distill", "epochs": 10, "batch_size": 32, "learning_rate": 0.01, **arguments}]


@pytest.mark.long
def test_a_student_learns_from_a_teacher_and_is_delivered(lathe: Lathe, tmp_path: Path) -> None:
    large = _upload(lathe, tmp_path, "large", w=networks.normal(8, 32), v=networks.normal(32, 4, seed=1) / 4)
    small = _upload(lathe, tmp_path, "small", w=networks.normal(8, 16, seed=2), v=networks.normal(16, 4, seed=3) / 4)
    write_npz(tmp_path / "rows.npz", {"x": networks.normal(ROWS, 8, seed=4)})
    data = {"training": lathe.upload_dataset(tmp_path / "rows.npz", name="rows")}
    job = lathe.optimize(large, _distill(student=str(small.id)), data=data, budget_seconds=60)
    with pytest.raises(LatheApiError) as refused:
        lathe.delete_model(small)
    assert refused.value.code == "in_use"
    job = lathe.wait(job)
    assert job.succeeded, job.error
    delivered = lathe.download(job.delivered(), tmp_path / "delivered.onnx")
    rows = {"x": networks.normal(ROWS, 8, seed=5)}
    files = (tmp_path / "large.onnx", tmp_path / "small.onnx", delivered)
    wanted, before, after = (ort.InferenceSession(str(path)).run(None, rows)[0] for path in files)
    # Half of the hidden units, and a hundred steps: well closer than what it began as.
    assert np.square(after - wanted).mean() < 0.5 * np.square(before - wanted).mean()
    assert delivered.stat().st_size < (tmp_path / "large.onnx").stat().st_size
    lathe.delete_model(small)


@pytest.mark.long
def test_a_search_is_given_a_recipe_with_a_student(lathe: Lathe, tmp_path: Path) -> None:
    large = _upload(lathe, tmp_path, "large", w=networks.normal(8, 32), v=networks.normal(32, 4, seed=1) / 4)
    small = _upload(lathe, tmp_path, "small", w=networks.normal(8, 16, seed=2), v=networks.normal(16, 4, seed=3) / 4)
    write_npz(tmp_path / "rows.npz", {"x": networks.normal(ROWS, 8, seed=4)})
    data = {"training": lathe.upload_dataset(tmp_path / "rows.npz", name="rows")}
    search = {"given": [_distill(student=str(small.id))]}
    options = {"objective": "size", "contract": {"max_drop": 0.9}, "deployment_check": False, "budget_seconds": 60}
    job = lathe.wait(lathe.optimize(large, "auto", data=data, search=search, **options))
    assert job.succeeded, job.error
    delivered = lathe.download(job.delivered(), tmp_path / "delivered.onnx")
    # Half of the hidden units: a third of the bytes at least are gone.
    assert delivered.stat().st_size < 0.7 * (tmp_path / "large.onnx").stat().st_size


@pytest.mark.parametrize("search", [False, True], ids=["recipe", "given-to-a-search"])
@pytest.mark.parametrize(
    ("argument", "other", "code"),
    [
        pytest.param("student", "odd", "student_mismatch", id="a-student-with-another-input"),
        pytest.param("teacher", "odd", "data_mismatch", id="a-teacher-that-the-data-does-not-feed"),
        pytest.param("teacher", "nowhere", "not_found", id="a-teacher-that-is-not-there"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    argument: str, other: str, code: str, search: bool, lathe: Lathe, tmp_path: Path
) -> None:
    model = _upload(lathe, tmp_path, "model", w=networks.normal(8, 32), v=networks.normal(32, 4, seed=1))
    odd = _upload(lathe, tmp_path, "odd", ODD, w=networks.normal(8, 4))
    write_npz(tmp_path / "rows.npz", {"x": networks.normal(ROWS, 8, seed=4)})
    data = {"training": lathe.upload_dataset(tmp_path / "rows.npz", name="rows")}
    named = str(odd.id if other == "odd" else uuid4())
    with pytest.raises(LatheApiError) as refused:
        recipe = _distill(**{argument: named})
        lathe.optimize(model, "auto", data=data, search={"given": [recipe]}) if search else lathe.optimize(
            model, recipe, data=data
        )
    assert refused.value.code == code
    assert argument in refused.value.detail
