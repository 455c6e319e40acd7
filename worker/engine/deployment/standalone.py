"""A file as its user will run it: this script imports ONNX Runtime, numpy and the standard library, and nothing else.

`standalone.py REQUEST ANSWER`, both JSON, in the shapes of `worker.engine.deployment.requests`. It loads the file, runs
it again and again, first from one thread and then from several on the same session, compares every answer bit by bit
with the first one on the same input, and watches its own memory.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Feed = dict[str, np.ndarray]
# Modules that an installation of Python imports by itself, beside those with a leading underscore.
HOOKS = {"sitecustomize", "usercustomize"}
# Points of the curve of memory: enough to see a slope, too few to cost anything.
MEMORY_POINTS = 100
# Of the time, what goes to one thread before several take their turn.
ALONE_SHARE = 0.6


def main() -> None:
    """Answer the request; what the runtime refuses is an answer too."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer: dict[str, Any] = {"versions": {"onnxruntime": ort.__version__, "numpy": np.__version__}}
    try:
        _examine(request, answer)
    except Exception as error:
        answer["error"] = str(error).strip().replace("\n", " ")[:1000]
    answer["modules"] = third_party()
    partial = Path(f"{sys.argv[2]}.partial")
    partial.write_text(json.dumps({"answer": answer}), encoding="utf-8")
    partial.replace(sys.argv[2])


def third_party() -> list[str]:
    """Top-level modules in this process that are not of the standard library."""
    names = {name.partition(".")[0] for name in sys.modules}
    return sorted(name for name in names - sys.stdlib_module_names - HOOKS if not name.startswith("_"))


def _examine(request: dict[str, Any], answer: dict[str, Any]) -> None:
    feeds = [{name: _array(stored) for name, stored in feed.items()} for feed in request["feeds"]]
    started = time.perf_counter()
    session = _open(request)
    answer["load_ms"] = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    repetition = Repetition(session, feeds)
    deadline = started + ALONE_SHARE * request["seconds"]
    answer["memory"] = repetition.alone(request["runs"], deadline)
    answer["alone"] = repetition.account(1)
    repetition.start_again()
    repetition.together(request["callers"], request["runs"], started + request["seconds"])
    answer["together"] = repetition.account(request["callers"])


def _open(request: dict[str, Any]) -> ort.InferenceSession:
    if request["providers"][0] != "CPUExecutionProvider" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(request["model"], options, providers=request["providers"])


def _array(stored: dict[str, Any]) -> np.ndarray:
    """In memory, not mapped: pages of a file that are read late would look like growth."""
    shape, dtype = tuple(stored["shape"]), np.dtype(stored["dtype"])
    count = int(np.prod(shape))
    values = np.fromfile(stored["path"], dtype, count, offset=stored["offset"]).reshape(shape)
    return values.astype(object if stored["as_dtype"] == "string" else np.dtype(stored["as_dtype"]))


class Repetition:
    """One session asked the same questions many times."""

    def __init__(self, session: ort.InferenceSession, feeds: list[Feed]) -> None:
        self._session, self._feeds = session, feeds
        self._names = [output.name for output in session.get_outputs()]
        self._expected = [session.run(None, feed) for feed in feeds]
        self._lock = threading.Lock()
        self.start_again()

    def start_again(self) -> None:
        """Forget what was counted, not what was answered."""
        self._begun = self._runs = self._different_runs = 0
        self._different: dict[str, int] = {}
        self._error: str | None = None

    def account(self, callers: int) -> dict[str, Any]:
        """What was counted."""
        return {
            "callers": callers,
            "runs": self._runs,
            "different_runs": self._different_runs,
            "different_outputs": self._different,
            "error": self._error,
        }

    def alone(self, runs: int, deadline: float) -> list[tuple[int, int]]:
        """Calls one after another; `(run, resident bytes)` on the way."""
        every = max(1, runs // MEMORY_POINTS)
        memory = [(0, resident_bytes())]
        for number in range(runs):
            self._run(number)
            if (number + 1) % every == 0:
                memory.append((number + 1, resident_bytes()))
            if time.perf_counter() > deadline:
                break
        return memory

    def together(self, callers: int, runs: int, deadline: float) -> None:
        """Calls by so many threads at once, each on another input than its neighbours where there are several."""
        threads = [threading.Thread(target=self._call, args=(runs, deadline)) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call(self, runs: int, deadline: float) -> None:
        try:
            while time.perf_counter() < deadline:
                with self._lock:
                    number = self._begun
                    self._begun += 1
                if number >= runs:
                    return
                self._run(number)
        except Exception as error:
            self._error = str(error)[:1000]

    def _run(self, number: int) -> None:
        index = number % len(self._feeds)
        found = self._session.run(None, self._feeds[index])
        pairs = zip(self._names, found, self._expected[index], strict=True)
        different = [name for name, one, other in pairs if not same_bits(one, other)]
        with self._lock:
            self._runs += 1
            self._different_runs += bool(different)
            for name in different:
                self._different[name] = self._different.get(name, 0) + 1


def same_bits(one: Any, other: Any) -> bool:
    """Whether two answers are the same to the last bit, a NaN like any other number; lists and maps part by part."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype == object:
            return bool(one.tolist() == other.tolist())
        left, right = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
        return bool(np.array_equal(left, right))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_bits, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
