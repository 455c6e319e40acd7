"""What probes of one model on one call are asked, and what the one answers that runs in a fresh process.

Apart from what other probes are asked, for that process waits for all that is imported here.
"""

from pydantic import BaseModel, Field

from worker.engine.feeds import FeedDescription
from worker.engine.sessions import Device


class OneCall(BaseModel):
    """One model on one stored call. Limits are seconds of measuring, not of loading."""

    model: str
    feed: FeedDescription
    threads: int
    device: Device = "cpu"
    seconds: float
    folder: str = Field(description="Where the probe may write.")


class OutputFace(BaseModel):
    """One output as a call returned it."""

    dtype: str
    shape: list[int]


class Footprint(BaseModel):
    """Memory and loading of one file in a fresh process."""

    load_ms: float = Field(description="Median time to create a session.")
    peak_memory_bytes: int = Field(description="Peak resident memory after the first calls.")
    baseline_memory_bytes: int = Field(description="The same before the model was loaded.")
    call_ms: float = Field(description="Fastest of the first calls: what other probes plan with.")
    outputs: dict[str, OutputFace] = Field(description="What a call returned; values that are no tensor are left out.")
