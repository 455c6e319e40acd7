"""What probes are asked and what they answer."""

from pydantic import BaseModel, Field

from app.jobs.report import Interval, Kernels, Latency, Quality
from app.recipes.request import Metric
from worker.engine.feeds import FeedDescription
from worker.engine.sessions import Device
from worker.engine.stored_arrays import StoredArray


class KernelReport(BaseModel):
    """Which kernels ran, and the float nodes among those that could compute in 8 bits."""

    kernels: Kernels
    float_nodes: dict[str, list[str]] = Field(description="By operator: names of Conv, MatMul and Gemm nodes in float.")
    float_node_shares: dict[str, float] = Field(description="By operator: their share of the time.")
    quantized: bool = Field(description="Whether any kernel computed in 8 bits.")


class Turns(BaseModel):
    """Models on one stored call each, timed by turns."""

    models: list[str]
    feeds: list[FeedDescription]
    threads: int
    device: Device = "cpu"
    seconds: float
    rounds: int
    round_seconds: float


class TurnsAnswer(BaseModel):
    """Latency of each model, in the order of the request; ratios are the first's over each one's."""

    latencies: list[Latency]
    ratios: list[Interval]
    calls_per_second: list[float] = Field(description="One after another, in the median round.")


class Comparison(BaseModel):
    """Original and candidate on data."""

    original: str
    candidate: str
    feed: FeedDescription
    labels: dict[str, StoredArray]
    metric: Metric
    threads: int
    device: Device = "cpu"
    batch: int
    seconds: float
    seed: int
    confidence: float = 0.95


class Influence(BaseModel):
    """What hangs on one sample of macro-F1, which is no mean over samples."""

    most: float = Field(gt=0, description="What one sample takes of it at most: 1 / samples where all weigh alike.")
    rarest_class: int = Field(description="Of those that the original is ever right about, the least frequent.")
    rarest_samples: int = Field(description="In how many samples it is right about that.")


class ComparisonAnswer(BaseModel):
    """Quality of both files, and of the difference."""

    original: list[Quality] = Field(description="Metrics against labels.")
    candidate: list[Quality] = Field(description="Metrics against labels, then against the original.")
    metric_original: float | None = Field(description="The job's metric of the original.")
    metric_candidate: float | None
    drop: float | None = Field(description="What the contract bounds: see `worker.engine.evaluation.metrics.drop`.")
    drop_low: float | None = Field(description="Paired bootstrap, 2.5 %.")
    drop_high: float | None = Field(description="Paired bootstrap, 97.5 %.")
    drop_above: float | None = Field(
        default=None, description="What the drop exceeds at the confidence asked for, one-sided."
    )
    drop_below: float | None = Field(
        default=None, description="What the drop stays below at the confidence asked for, one-sided."
    )
    sample_count: int
    scored_samples: int = Field(description="Of them those that the metric scores: without a known label none is.")
    changed_samples: int = Field(
        description="Samples whose score by the metric changed; of `f1`, which no sample has of its own, 0."
    )
    influence: Influence | None = Field(
        default=None, description="Of `f1`, where the original is right about anything; else null."
    )
    warnings: list[str]
