"""What passes between the supervisor and the runner: a job in, events on a pipe, a result out.

The runner has opened an untrusted model, so the supervisor reads both ways back as untrusted: sizes are bounded and
every message goes through these shapes.
"""

import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.datasets.inspection import DatasetInspection
from app.errors import Fault
from app.jobs.report import Report, Summary, TrainedEpoch, TrialReport, Verdict
from app.jobs.states import JobKind
from app.models.inspection import ModelInspection
from app.recipes.catalogue import MOST_STEPS
from app.recipes.request import OptimizeRequest
from worker.engine.inspection import bounds

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
OUTPUT_FOLDER = "outputs"
CHECKPOINT_FOLDER = "checkpoints"
BEST_FOLDER = "best"
PIECE_FOLDER = "pieces"
EVENT_FD_VARIABLE = "LATHE_EVENT_FD"
MAX_EVENT_BYTES = 64 << 10
ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
MAX_RESULT_BYTES = 64 << 20


FileName = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9._-]+$")]
MediaType = Annotated[str, Field(max_length=100)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class InputFile(Strict):
    """A file the supervisor put into the work folder."""

    path: str = Field(description="Relative to the work folder.")
    media_type: str
    sha256: str
    size_bytes: int
    name: str = Field(description="The user's name for it; used in messages and artifact names only.")


class RunnerJob(Strict):
    """`job.json`."""

    kind: JobKind
    model: InputFile | None = None
    others: dict[str, InputFile] = Field(default_factory=dict, description="Models that the recipe names, by id.")
    datasets: dict[str, InputFile] = Field(default_factory=dict, description="By role, or `dataset` at inspection.")
    request: OptimizeRequest | None = None
    threads: int = Field(description="Threads of a model that asks for no number, and the most that one may ask for.")
    timing_rounds: int = Field(description="How often files are timed by turns, where time suffices.")
    round_seconds: float = Field(description="How long each is timed, every time, at most.")
    budget_seconds: float
    memory_bytes: int
    checkpoints: dict[int, str] = Field(
        default_factory=dict, description="By step of the recipe, what an earlier attempt left; relative paths."
    )
    pieces: dict[str, str] = Field(
        default_factory=dict, description="By key, what earlier searches of the same finished; relative paths."
    )
    piece_bytes: int = Field(default=0, description="The most that one may have to be kept.")


class Best(Strict):
    """The best that a search has found so far; its file is in a folder of its own, and taken away."""

    file: str = Field(max_length=64, pattern=r"^\d+\.(onnx|tar)$")
    file_name: FileName
    media_type: MediaType
    gain: float = Field(
        description="As the objective counts it: more is better. Below 0 of what is not likely to be accepted, so that "
        "whatever is takes its place."
    )
    trial: TrialReport = Field(description="What was measured on it.")


class Piece(Strict):
    """Something that a search has finished, for later ones of the same model and data; its file is taken away."""

    file: str = Field(max_length=64, pattern=r"^\d+\.tar$")
    key: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of everything that it depends on.")


class Event(Strict):
    """One line of JSON on the event pipe."""

    type: Literal["phase", "progress", "log", "epoch", "checkpoint", "trial", "best", "piece"]
    phase: str | None = Field(default=None, max_length=64, pattern=r"^[a-z_]+$")
    progress: float | None = Field(default=None, ge=0, le=1)
    eta_seconds: float | None = Field(default=None, ge=0)
    level: Literal["info", "warning"] | None = None
    message: str | None = Field(default=None, max_length=8192)
    epoch: TrainedEpoch | None = None
    trial: TrialReport | None = None
    best: Best | None = None
    piece: Piece | None = None
    step: int | None = Field(default=None, ge=0, lt=MOST_STEPS)
    file: str | None = Field(default=None, max_length=64, pattern=r"^\d+-\d+\.tar$")


class OutputFile(Strict):
    """A file the runner made."""

    path: str = Field(pattern=r"^outputs/[A-Za-z0-9._-]+$")
    kind: Literal["model", "manifest", "ort", "plot"]
    file_name: FileName
    media_type: MediaType


Inspection = TypeVar("Inspection", ModelInspection, DatasetInspection)


def _bounded(inspection: Inspection) -> Inspection:
    """Raises ValueError: an honest runner refuses a file that so much could be said of."""
    if bounds.excess_bytes(inspection) is not None:
        raise ValueError("the inspection says more than one may")
    return inspection


class RunnerResult(Strict):
    """`result.json`."""

    outcome: Literal["succeeded", "failed"]
    fault: Fault | None = None
    retryable: bool = Field(default=False, description="True only where another attempt could end otherwise.")
    peak_memory_bytes: int | None = Field(
        default=None, ge=0, lt=2**63, description="Peak resident memory of the largest process of the runner."
    )
    model: Annotated[ModelInspection, AfterValidator(_bounded)] | None = None
    dataset: Annotated[DatasetInspection, AfterValidator(_bounded)] | None = None
    artifacts: list[OutputFile] = Field(default_factory=list, max_length=64)
    report: Report | None = None
    verdict: Verdict | None = None
    summary: Summary | None = None


def without_nul(text: bytes) -> bytes:
    """JSON whose strings hold U+FFFD for NUL, which Postgres keeps in none; a model may well hold one in a name.

    Six characters that only look like its escape, behind a backslash that is one itself, stay.
    """
    return ESCAPED_NUL.sub(rb"\1\\ufffd", text)
