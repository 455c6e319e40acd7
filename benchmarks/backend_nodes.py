"""Every one of ONNX's backend node tests through the passes that take any model. It takes a quarter of an hour.

    python -m benchmarks.backend_nodes

What is asked of a result, and what may fail for which reason, is `tests/worker/passes/test_backend_nodes.py`'s. Ends
with 1 where another model fails, or one of those does not.
"""

import sys
import tempfile
from pathlib import Path

from tests.worker.backend_nodes import node_models, stored_models, with_constants
from tests.worker.passes.test_backend_nodes import ARGUMENTS, runnables, sweep
from worker.engine import profiling


def main() -> int:
    # Times are not what is looked at.
    profiling.MOST_CALLS = 2
    nodes, stored = node_models(), stored_models()
    forms = {
        "node tests": nodes,
        "node tests, all but one input constant": list(with_constants(nodes)),
        "exports of PyTorch": stored,
    }
    unexpected = 0
    for form, models in forms.items():
        with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
            taken = list(runnables(models, Path(folder)))
            print(f"{form}: {len(models)} with a float32 tensor as input, {len(taken)} of them run in ONNX Runtime")
            for name in ARGUMENTS:
                found = sweep(name, taken)
                print(f"  {found.in_words()}", flush=True)
                for model, fault in found.unexpected.items():
                    print(f"  UNEXPECTED {model}: {fault}")
                unexpected += len(found.unexpected)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
