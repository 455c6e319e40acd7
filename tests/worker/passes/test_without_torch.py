"""What a worker without torch says that it serves runs there, and imports no torch on the way."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.passes.registry import load_pass

ROOT = Path(__file__).parents[3]
# By default this network is too small for it to be worth while; and how much is pruned has no default.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "quantize_weights": {"minimum_elements": 1},
    "prune_unstructured": {"threshold": 0.02},
    "prune_structured": {"ratio": 0.25},
    "factorize_low_rank": {"objective": "size", "fidelity_floor_db": 3.0},
}
SERVED = [entry.name for entry in CATALOGUE.values() if not entry.needs_torch]


def test_every_pass_that_does_not_train_runs_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import json; from pathlib import Path;"
        "from tests.worker.passes import test_without_torch as test;"
        "print(json.dumps(test.changed_in(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(SERVED, True)


def changed_in(folder: Path) -> dict[str, bool]:
    """What the test asks of its child: by pass, whether it changed a small network."""
    model = ModelFile(networks.save(networks.convnet(), folder / "model"))
    feeds = match_arrays(inputs_of(model.structure()), {"image": normal(8, 3, 16, 16)}, "data")
    changed = {}
    for name in SERVED:
        (folder / name).mkdir()
        config = CATALOGUE[name].config.model_validate({"pass": name, **ARGUMENTS.get(name, {})})
        changed[name] = load_pass(name)(model, config, PassContext(folder / name, feeds, seed=0, threads=1)).modified
    return changed
