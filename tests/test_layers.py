"""The API stays light; that imports run one way is checked before the tests."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
HEAVY = ("torch", "onnx", "onnxruntime", "onnx_ir", "numpy", "scipy", "safetensors", "worker")
IMPORT_THE_API = """
import json, sys
import app.main
alone = len(sys.modules)
import app.embedded, app.cli, app.client, uvicorn
app.main.create_app
print(json.dumps({"alone": alone, "all": sorted(sys.modules)}))
"""


def test_the_api_starts_with_few_modules_and_no_model_library() -> None:
    """Starting is mostly importing: 1,000 modules take about a second, and a model library adds 500 to 2,000."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_THE_API], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    modules = json.loads(result.stdout)
    loaded = {name.partition(".")[0] for name in modules["all"]}
    assert "fastapi" in loaded
    # redis-py loads the SDK of OpenTelemetry where it finds it; what sends traces is loaded where there is an endpoint.
    assert not [name for name in modules["all"] if name.startswith("opentelemetry.exporter")]
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))
    assert modules["alone"] < 1500
