"""What the children of the deployment check are asked and what they answer."""

from typing import Literal

from pydantic import BaseModel, Field

from worker.engine.feeds import FeedDescription
from worker.engine.sessions import Device


class FedArray(BaseModel):
    """Raw elements of one input, in C order, and what the input takes them as."""

    path: str
    dtype: str
    shape: list[int]
    offset: int = 0
    as_dtype: str


class Alone(BaseModel):
    """One file, by itself, on some calls again and again."""

    model: str
    feeds: list[dict[str, FedArray]]
    threads: int
    providers: list[str]
    callers: int = Field(description="Threads that call the session at once.")
    runs: int = Field(description="Calls from one thread, and again from all of them together.")
    seconds: float


class Repeated(BaseModel):
    """Calls whose answers were compared with the first one, bit by bit."""

    callers: int
    runs: int
    different_runs: int
    different_outputs: dict[str, int] = Field(description="By output, in how many runs it differed.")
    error: str | None = None


class AloneAnswer(BaseModel):
    """What is None was not reached: `error` says why."""

    modules: list[str] = Field(description="Top-level modules of that process beside the standard library's.")
    versions: dict[str, str]
    error: str | None = None
    load_ms: float | None = None
    memory: list[tuple[int, int]] = Field(default=[], description="Runs so far, resident bytes.")
    alone: Repeated | None = None
    together: Repeated | None = None


class Variant(BaseModel):
    """One way to make a case; `words` say what was fed."""

    words: str
    feed: FeedDescription


class Case(BaseModel):
    """An input out of the ordinary. Of the variants the first is taken that the original runs and time allows."""

    name: str
    variants: list[Variant]


class Edges(BaseModel):
    """Original and candidate on every case; the first one is the ordinary input that others are measured by."""

    original: str
    candidate: str
    cases: list[Case]
    threads: int
    device: Device = "cpu"
    seconds: float


class EdgeOutput(BaseModel):
    """What the candidate keeps of one output."""

    agreement: float = Field(description="Mean over samples; 1 of what holds no element in either.")
    sqnr_db: float | None = Field(
        default=None,
        description="Of floats: the larger of the output's power here and on ordinary input, over that of the "
        "difference.",
    )
    is_empty: bool = Field(default=False, description="It holds no element, which says nothing of how much is kept.")


class EdgeAnswer(BaseModel):
    """One case.

    `refused`: the original does not run it; `failed`: the original does and the candidate does not.
    """

    name: str
    outcome: Literal["compared", "refused", "failed", "no_time"]
    words: str = Field(description="What was fed, or what the runtime said.")
    shapes: dict[str, list[int]] = {}
    broken: list[str] = Field(default=[], description="Outputs that are finite in the original and not in the other.")
    reshaped: list[str] = Field(default=[], description="Outputs of another shape or dtype than the original's.")
    not_finite: list[str] = Field(default=[], description="Outputs of which the original holds no finite element.")
    outputs: dict[str, EdgeOutput] = Field(default={}, description="Those that could be compared, by name.")

    @property
    def sqnr_db(self) -> float | None:
        """Of the worst output; None where none that could be compared is a float."""
        return min((one.sqnr_db for one in self.outputs.values() if one.sqnr_db is not None), default=None)

    @property
    def agreement(self) -> float | None:
        """Mean over outputs; None where none could be compared."""
        shares = [one.agreement for one in self.outputs.values()]
        return sum(shares) / len(shares) if shares else None


class EdgesAnswer(BaseModel):
    """In the order of the cases."""

    cases: list[EdgeAnswer]
