"""What the caller holds in memory, as files."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from app.client import ExportFailed, Lathe, conversion
from app.client.conversion import write_npz
from tests.app.client.answers import MODEL
from tests.app.client.conftest import Server


def test_arrays_are_written_as_they_are(tmp_path: Path) -> None:
    arrays = {
        "image": np.arange(12, dtype=np.float32).reshape(3, 4),
        "mask": np.array([True, False, True]),
        "half": np.ones((3, 1), np.float16),
        # numpy.savez has arguments of these names.
        "file": np.arange(3, dtype=np.int64),
        "allow_pickle": np.zeros((3, 0), np.float32),
    }
    path = tmp_path / "data.npz"
    write_npz(path, arrays)
    with np.load(path, allow_pickle=False) as read:
        assert sorted(read) == sorted(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def test_python_objects_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="`ragged`"):
        write_npz(tmp_path / "data.npz", {"ragged": np.array([[1], [2, 3]], dtype=object)})


@pytest.mark.skipif(find_spec("torch") is not None, reason="says what happens where torch is not installed")
def test_a_module_without_torch_names_what_to_install() -> None:
    with Lathe("http://127.0.0.1:9", "lth_any") as lathe, pytest.raises(ExportFailed, match="pip install torch"):
        lathe.upload_module(object(), (), name="net")


class Digits:
    """Stands for a module of this name."""


@pytest.mark.parametrize(("given", "name"), [({}, "Digits"), ({"name": "net"}, "net")], ids=["of-its-class", "given"])
def test_a_module_without_a_name_bears_that_of_its_class(
    server: Server, connect: Callable[..., Lathe], monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str
) -> None:
    @server.app.post("/v1/models")
    async def upload(name: str) -> Response:
        return JSONResponse({**MODEL, "name": name}, 201)

    def export(module: object, inputs: object, folder: Path, **_: object) -> Path:
        """What is exported does not matter here, and torch is not everywhere."""
        (folder / "model.onnx").write_bytes(b"a model")
        return folder / "model.onnx"

    monkeypatch.setattr(conversion, "export_module", export)
    assert connect().upload_module(Digits(), (), **given).name == name


@pytest.mark.filterwarnings("default::FutureWarning")  # torch's exporter warns of its own parts
def test_a_module_arrives_as_an_onnx_file_that_answers_as_it_does(
    server: Server, connect: Callable[..., Lathe]
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    bodies: list[bytes] = []

    @server.app.post("/v1/models")
    async def upload(name: str, request: Request) -> Response:
        bodies.append(await request.body())
        return JSONResponse({**MODEL, "name": name}, 201)

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    model = connect().upload_module(
        module,
        (torch.zeros(2, 4),),
        name="net",
        input_names=["features"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )

    assert model.name == "net"
    assert module.training  # exported in evaluation mode, its own put back
    session = onnxruntime.InferenceSession(bodies[0], providers=["CPUExecutionProvider"])
    features = torch.randn(5, 4)  # another batch than the example's
    (scores,) = session.run(["scores"], {"features": features.numpy()})
    with torch.no_grad():
        expected = module.eval()(features).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)  # float32, sums of 8 terms in another order
