"""Probe: time to load and peak memory of one file.

Peak memory is VmHWM of /proc/self/status; `ru_maxrss` survives exec and would show the parent's.
"""

import statistics
import time
from pathlib import Path

import numpy as np

from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.one_call import Footprint, OneCall, OutputFace
from worker.engine.sessions import open_session, run_session

FIRST_CALLS = 3
LOADS = 3
KIBIBYTE = 1024


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIBIBYTE
    return 0


def measure(request: OneCall) -> Footprint:
    """The first load and the first calls set the peak; further loads only steady the time."""
    path = Path(request.model)
    feed = next(request.feed.open().calls(1)).feed
    before = peak_memory_bytes()
    started = time.perf_counter()
    session = open_session(path, request.threads, device=request.device)
    loads = [time.perf_counter() - started]
    calls = []
    for _ in range(FIRST_CALLS):
        started_call = time.perf_counter()
        returned = run_session(session, feed)
        calls.append(time.perf_counter() - started_call)
        if time.perf_counter() - started > request.seconds:
            break
    peak = peak_memory_bytes()
    outputs = {
        output.name: OutputFace(dtype=value.dtype.name, shape=list(value.shape))
        for output, value in zip(session.get_outputs(), returned, strict=True)
        if isinstance(value, np.ndarray)
    }
    del session
    while len(loads) < LOADS and time.perf_counter() - started + loads[-1] < request.seconds:
        started_load = time.perf_counter()
        open_session(path, request.threads, device=request.device)
        loads.append(time.perf_counter() - started_load)
    return Footprint(
        load_ms=statistics.median(loads) * 1e3,
        peak_memory_bytes=peak,
        baseline_memory_bytes=before,
        call_ms=min(calls) * 1e3,
        outputs=outputs,
    )


def main() -> None:
    serve_probe(OneCall, measure)


if __name__ == "__main__":
    main()
