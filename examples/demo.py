"""The main job, once and for real: a small CNN goes in over HTTP, a smaller and faster one comes out, measured.

    python -m examples.demo

It runs the whole service in a temporary folder, and stops and removes all of it in the end. Exit codes are those of the
`lathe` command: 0 where the contract was met, 3 where it was not, 1 where something failed.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import numpy as np
from rich.console import Console

from app.cli.connection import say_retries
from app.cli.exits import ExitCode, code_of_job
from app.cli.output import bytes_text
from app.cli.progress import watching
from app.cli.report_table import print_report
from app.client import Job, Lathe, LatheClientError
from app.embedded import EmbeddedError, Stack
from examples.digits import data as digits

MODEL = Path(digits.__file__).with_name("digits.onnx")
MAX_DROP = 0.01
BUDGET_SECONDS = 120
SHADES = " .:-=+*#%@"
console = Console(highlight=False)


def main() -> int:
    """Run it; the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    say_retries()
    folder = Path(tempfile.mkdtemp(prefix="lathe-demo-"))
    code = ExitCode.FAILED
    try:
        code = _serve_and_run(folder)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except (EmbeddedError, LatheClientError) as error:
        console.print(f"The demo failed: {error}", style="red", markup=False)
    finally:
        if code in (ExitCode.FAILED, ExitCode.UNMET):
            console.print(f"Its logs are kept in {folder / 'service' / 'logs'}", markup=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _serve_and_run(folder: Path) -> ExitCode:
    began = time.monotonic()
    stack = Stack(folder / "service", port=0, say=lambda line: console.print(line, markup=False))
    _say("Starting Postgres, Redis, the API, workers and housekeeping")
    stack.start()
    try:
        stack.wait_ready()
        _say(f"Ready on {stack.url} after {time.monotonic() - began:.1f} s")
        with Lathe(stack.url, stack.key) as lathe:
            code = _optimize(lathe, folder)
    finally:
        _say("Stopping everything")
        stack.stop()
    _say(f"Done in {time.monotonic() - began:.1f} s")
    return code


def _optimize(lathe: Lathe, folder: Path) -> ExitCode:
    """The path of every user: upload, submit, watch, read, download, run."""
    model = lathe.upload_model(MODEL)
    _say(f"Uploaded {model.name}: {bytes_text(model.size_bytes)}, {model.parameter_count:,} parameters")
    calibration_file, evaluation_file = digits.write(folder)
    calibration, evaluation = lathe.upload_dataset(calibration_file), lathe.upload_dataset(evaluation_file)
    _say(f"Uploaded {calibration.sample_count} samples to calibrate on, {evaluation.sample_count} others to judge by")
    job = lathe.optimize(
        model,
        "quantize_static",
        data={"calibration": calibration, "evaluation": evaluation},
        metric={"name": "top1", "output": "logits", "labels": "label"},
        contract=MAX_DROP,
        budget_seconds=BUDGET_SECONDS,
    )
    _say(f"Submitted job {job.id}: quantize_static, at most {100 * MAX_DROP:g} point of top-1 lost")
    with watching() as watch:
        job = lathe.wait(job, on_update=watch.on_update, on_event=watch.on_event)
    if not job.succeeded or job.optimized is None:
        _say_failure(job)
        return ExitCode.FAILED
    print_report(console, lathe.report(job))
    optimized = lathe.download(job, folder)
    _say(f"\nDownloaded {optimized.name}: {bytes_text(optimized.stat().st_size)}, its sha256 verified")
    _classify(optimized)
    code = code_of_job(job)
    if code is ExitCode.UNMET:
        _say("The contract was not met; the best candidate was delivered all the same.")
    return code


def _say_failure(job: Job) -> None:
    _say(f"Job {job.id} is {job.state}.")
    if job.error is not None:
        _say(f"{job.error.title}: {job.error.detail} {job.error.remedy or ''} ({job.error.code})")


def _classify(path: Path) -> None:
    """Run the delivered file on one sample, as any program would, and show both."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its makers from the moment of its import
    import onnxruntime  # noqa: PLC0415 - after the line above

    part = digits.load().evaluation
    image, label = part.image[:1], int(part.label[0])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image})
    exponents = np.exp(logits[0] - logits[0].max())
    answer = int(logits[0].argmax())
    for row in image[0, 0]:
        _say("    " + "".join(2 * SHADES[round(float(pixel) * (len(SHADES) - 1))] for pixel in row))
    _say(f"onnxruntime on one sample: {answer}, with {exponents[answer] / exponents.sum():.1%}; it is a {label}")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
