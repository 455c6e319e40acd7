"""What every optimization job begins with: its files opened, its threads settled, what its passes are given."""

from dataclasses import dataclass
from pathlib import Path

from app import errors
from app.recipes.request import USUAL_CONFIDENCE, Metric, OptimizeRequest
from worker.engine.evaluation.acceptance import COUNTING
from worker.engine.faults import UserFault
from worker.engine.graph import UnsupportedValue, inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.preparation import Preparations
from worker.engine.sessions import Device, require_device
from worker.runner.chain import Circumstances
from worker.runner.contract import InputFile, RunnerJob
from worker.runner.events import Events
from worker.runner.job_data import JobData
from worker.runner.measuring import Laboratory
from worker.runner.pacing import Pacing
from worker.runner.unpacking import MODEL_FOLDER, unpack_model


class UnsupportedInput(UserFault):
    code, title = "unsupported_input", "The model takes input that is no tensor"


class IncompleteJob(UserFault):
    code, title = "incomplete_job", "The job lacks a model, a request or its metric"


class TooManyThreads(UserFault):
    code, title = errors.TooManyThreads.code, errors.TooManyThreads.title


@dataclass(frozen=True)
class OpenJob:
    """A job whose model is open; `request` names the threads that a model is given."""

    job: RunnerJob
    request: OptimizeRequest
    model: ModelFile
    workdir: Path
    scratch: Path
    pacing: Pacing

    @property
    def name(self) -> str:
        """What the user calls the model."""
        return self.job.model.name if self.job.model else "model"

    @property
    def threads(self) -> int:
        return self.request.target.threads or self.job.threads

    @property
    def device(self) -> Device:
        return self.request.target.device

    @property
    def metric(self) -> Metric:
        """As the submission settled it. Raises IncompleteJob."""
        if self.request.metric is None:
            raise IncompleteJob("The request of the job names no metric.", None)
        return self.request.metric

    def laboratory(self, data: JobData, name: str, confidence: float = USUAL_CONFIDENCE) -> Laboratory:
        """Where files are measured, in a folder of this name; `confidence` is that of bounds on the metric's drop."""
        job = self.job
        return Laboratory(
            self.scratch / name,
            data,
            self.threads,
            self.device,
            self.request.seed,
            self.pacing,
            job.timing_rounds,
            job.round_seconds,
            confidence,
        )

    def circumstances(self, data: JobData, metric: Metric) -> Circumstances:
        """Opens the other models that the recipe names."""
        return Circumstances(
            feeds=data.calibration,
            seed=self.request.seed,
            threads=self.threads,
            round_seconds=self.job.round_seconds,
            folder=self.scratch,
            pacing=self.pacing,
            target=data.latency,
            max_drop=bounded_drop(self.request, metric),
            device=self.device,
            instruction_set=self.request.target.instruction_set,
            original=self.model,
            preparations=Preparations(self.model, self.scratch / "prepared"),
            others={name: open_model(file, self.workdir, f"model-{name}") for name, file in self.job.others.items()},
            training=data.training,
            workdir=self.workdir,
            checkpoints=self.job.checkpoints,
        )


def open_job(job: RunnerJob, workdir: Path, events: Events) -> OpenJob:
    """The job with its model unpacked in `workdir`, its threads settled, and the clock of its budget running.

    Raises:
        UserFault: there is no model or no request, the model takes no tensors, or the device or the threads are not
            there.

    """
    if job.model is None or job.request is None:
        raise IncompleteJob("The job names no model or no request.", None)
    request = _with_threads(job.request, job.threads)
    pacing = Pacing(events, job.budget_seconds)
    scratch = workdir / "scratch"
    scratch.mkdir(exist_ok=True)
    require_device(request.target.device)
    pacing.phase("preparing")
    return OpenJob(job, request, open_model(job.model, workdir), workdir, scratch, pacing)


def open_model(file: InputFile, workdir: Path, folder_name: str = MODEL_FOLDER) -> ModelFile:
    """The model, unpacked into the folder of that name in `workdir`.

    Raises UserFault: it cannot be unpacked, or takes input that is no tensor.
    """
    model = ModelFile(unpack_model(file, workdir, folder_name))
    try:
        inputs_of(model.structure())
    except UnsupportedValue as error:
        raise UnsupportedInput(f"Input {error}.", "Export the model with tensors as inputs.") from error
    return model


def bounded_drop(request: OptimizeRequest, metric: Metric) -> float | None:
    """What the contract allows to be lost of a metric that counts samples; None where it says nothing of it."""
    if request.contract is None or metric.name not in COUNTING:
        return None
    return request.contract.largest_drop(str(metric.name))


def _with_threads(request: OptimizeRequest, most: int) -> OptimizeRequest:
    threads = request.target.threads or most
    if threads > most:
        raise TooManyThreads(
            f"`target.threads` is {threads}; this worker gives a model {most}.",
            f"Ask for {most} or fewer, or leave it out for all that the worker has.",
        )
    return request.model_copy(update={"target": request.target.model_copy(update={"threads": threads})})
