"""What a job reports: every measurement, on the very files that were delivered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from app.newer import MayGrow

# What is not finite is stored as null, so a figure that the API reads again where null is none has to be.
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Interval(BaseModel):
    """A value with its 95 % interval."""

    value: Finite = Field(description="The estimate.")
    low: float | None = Field(default=None, description="Lower end of the 95 % interval.")
    high: float | None = Field(default=None, description="Upper end of the 95 % interval.")


class Quality(BaseModel):
    """One metric of one file."""

    name: str = Field(description="The metric.")
    output: str | None = Field(default=None, description="The model output it was measured on; null over all outputs.")
    labels: str | None = Field(default=None, description="The label array; null where the original was the reference.")
    value: float | None = Field(description="The estimate; null where it is not finite (an exact copy has no SQNR).")
    low: float | None = Field(
        default=None,
        description="Lower end of the 95 % bootstrap interval; null of `f1` where that is not the job's metric.",
    )
    high: float | None = Field(default=None, description="Upper end of the 95 % bootstrap interval.")
    sample_count: int = Field(description="Samples that it scores: not those without a known label.")


class Latency(BaseModel):
    """Time of one call, over all rounds."""

    p50_ms: float = Field(description="Median.")
    p90_ms: float = Field(description="90th percentile.")
    p99_ms: float = Field(description="99th percentile.")
    mean_ms: float = Field(description="Mean.")
    call_count: int = Field(description="Calls timed.")
    round_medians_ms: list[float] = Field(description="Median of each round, in order: the raw material of the ratio.")


class KernelTime(BaseModel):
    """One kind of kernel that ran."""

    operator: str = Field(description="Operator type as executed (`QLinearConv`, `FusedConv`).")
    kind: Annotated[Literal["int8", "float", "conversion", "other"], MayGrow()] = Field(
        description="What it computes in."
    )
    node_count: int = Field(description="Nodes that ran it.")
    share: float = Field(description="Share of the time spent in kernels, 0 to 1.")


class Kernels(BaseModel):
    """Which kernels ran, by the profiler of ONNX Runtime."""

    int8_share: float = Field(description="Share of kernel time in 8-bit arithmetic.")
    float_share: float = Field(description="Share of kernel time in floating point.")
    conversion_share: float = Field(description="Share of kernel time between the two: Q, DQ, Cast, reorder.")
    other_share: float = Field(description="Share of kernel time in what is neither: shapes, copies, integers.")
    by_operator: list[KernelTime] = Field(description="By operator, most time first.")


class Measurement(BaseModel):
    """One file, measured in fresh processes."""

    size_bytes: int = Field(description="The file as delivered, external data included.")
    compressed_size_bytes: int = Field(description="The same through zstd at level 3.")
    load_ms: float = Field(description="Time to create a session.")
    peak_memory_bytes: int = Field(description="Peak resident memory of a fresh process that loads and runs it.")
    baseline_memory_bytes: int = Field(description="The same process before it loads the model.")
    latency: Latency = Field(description="Time of one call.")
    throughput_per_second: float = Field(description="Samples a second at the measured batch.")
    quality: list[Quality] = Field(description="Metrics against labels, and against the original.")
    kernels: Kernels = Field(description="Which kernels ran.")


class Factors(BaseModel):
    """What stands for a weight of a node that was factored."""

    form: Annotated[Literal["matrix", "channels", "spatial", "tucker"], MayGrow()] = Field(
        description="`matrix` K to r to N; of a convolution `channels` k x k to r channels, then 1 x 1; `spatial` k x "
        "1, then 1 x k; `tucker` 1 x 1, k x k, 1 x 1."
    )
    shape: list[int] = Field(description="Shape of the weight as it was.")
    ranks: list[int] = Field(description="The widths between the factors.")
    energy: float = Field(
        description="Share of the power of the node's output that is kept on the inputs that it was fitted to, 0 to 1; "
        "the rest is the error."
    )
    parameters_before: int = Field(description="Elements of the weight as it was.")
    parameters_after: int = Field(description="Elements of all factors together.")


class Layer(BaseModel):
    """One node: what was planned for it, what ran, and what it lost; of passes that work on weights, one of those."""

    name: str = Field(description="The node, in the graph as the pass prepared it; of a pruned weight, who reads it.")
    operator: str = Field(description="Its operator type.")
    planned: Annotated[Literal["int8", "float16", "float"], MayGrow()] | None = Field(
        default=None, description="What the pass chose, where it chooses between float32 and another."
    )
    reason: str | None = Field(default=None, description="Why it was left in float, or whole.")
    executed: str | None = Field(
        default=None, description="The kernel that ran for it in the result, where one did; kernels, where several."
    )
    executed_ms: float | None = Field(default=None, description="Time of those in a call.")
    float_ms: float | None = Field(default=None, description="Time of its kernel in float, where measured.")
    int8_ms: float | None = Field(default=None, description="Time of its kernel with everything in int8.")
    sqnr_db: float | None = Field(default=None, description="Signal to noise at its output: what was lost up to it.")
    sensitivity_db: float | None = Field(
        default=None,
        description="Signal to noise at the model's outputs with this node alone in int8, before any training; null "
        "where there was no time to measure it.",
    )
    weight: str | None = Field(
        default=None, description="The weight tensor that was pruned, factored or stored in fewer bits."
    )
    weight_sqnr_db: float | None = Field(
        default=None, description="Signal to noise of what is stored for that weight in fewer bits."
    )
    sparsity: float | None = Field(
        default=None, description="Share of that weight's elements that is zero in the result, 0 to 1."
    )
    factors: Factors | None = Field(default=None, description="What stands for that weight, where it was factored.")


class StepFile(BaseModel):
    """The file as one step left it, beside the original: measured as the delivered file is, in the time left by it."""

    size_bytes: int = Field(description="The file, external data included.")
    latency: Latency | None = Field(description="Time of one call; null where it was not measured.")
    original_latency_ms: float | None = Field(
        description="The original's median in the same run by turns: a run of its own, for all steps but the delivered."
    )
    latency_ratio: Interval | None = Field(description="Original's latency over this one's: above 1 is faster.")
    quality: list[Quality] = Field(
        description="Metrics against labels, and against the original; empty where they were not measured."
    )
    unmeasured: list[str] = Field(
        default_factory=list, description="What was not measured and why: the time was over, or the file does not run."
    )
    notes: list[str] = Field(default_factory=list, description="What a reader should know before trusting a number.")


class Step(BaseModel):
    """One pass as it ran."""

    pass_: str = Field(alias="pass", serialization_alias="pass", description="The pass.")
    parameters: dict[str, Any] = Field(description="Its arguments, every default filled in.")
    modified: bool = Field(description="Whether it changed the model.")
    seconds: float = Field(description="Time it took.")
    notes: list[str] = Field(default_factory=list, description="What it did and what it left alone, in words.")
    file: StepFile | None = Field(
        default=None,
        description="The file that it left: of the last one that changed the model the delivered file, of one that "
        "changed nothing the file it was given. Null where one pass ran alone; what it left is the candidate.",
    )
    layers: list[Layer] = Field(
        default_factory=list,
        description="Node by node, of passes that choose among nodes; weight by weight, of passes that prune.",
    )


class Candidate(BaseModel):
    """One optimized file."""

    name: str = Field(description="Its name in this report.")
    recipe: list[str] = Field(description="The passes that made it.")
    passes: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Of a search: the same with their arguments. As a recipe by themselves they want data for all that "
        "they read, where a search divides what there is, or makes some up.",
    )
    request: dict[str, Any] | None = Field(
        default=None,
        description="Of a search: the body of a job that has this file among its candidates again, made from samples "
        "divided as they were for it, and delivers it where it is the best; null of the original.",
    )
    file_name: str = Field(description="The artifact's file name.")
    sha256: str = Field(description="Hash of the artifact.")
    measurement: Measurement = Field(description="What was measured on it.")
    latency_ratio: Interval = Field(description="Original's latency over this one's: above 1 is faster.")
    verdict: "Verdict | None" = Field(default=None, description="Of a search: whether the contract holds for it.")
    drop: float | None = Field(
        default=None,
        description="Of a search: loss of the metric on those of accepting, as the contract bounds it.",
    )


class Verdict(BaseModel):
    """Whether the contract holds."""

    outcome: Annotated[Literal["met", "unmet", "undecidable", "no_contract"], MayGrow()] = Field(
        description="The answer; `undecidable` where a confidence was asked for and there are too few samples, or "
        "none but those that the file was made or chosen by."
    )
    reason: str = Field(description="The answer in words, with its numbers.")
    causes: list[str] = Field(default_factory=list, description="What lies behind the numbers, most important first.")


TrialOutcome = Annotated[Literal["winner", "front", "beaten", "broken", "failed", "tried"], MayGrow()]


class TrialReport(BaseModel):
    """One trial of a search: a candidate as it was measured on the samples for choosing."""

    name: str = Field(description="Its name; of a candidate of this report the same.")
    recipe: list[str] = Field(description="The passes that it was to be made of.")
    outcome: TrialOutcome = Field(
        description="`front`: delivered as well, nothing is better in speed, size, memory where it counts, and quality "
        "at once; `beaten`: something is, or was measured once more in its place; `broken`: it breaks the contract; "
        "`failed`: it could not be made or measured. While the search runs, `tried`."
    )
    explanation: str = Field(description="Why, in words with their numbers.")
    seconds: Finite = Field(description="Time that building and measuring it took, in the search that did so.")
    cached: bool = Field(
        default=False,
        description="Whether an earlier search built and measured it: of the same model, data, seed, threads, target "
        "and contract, on such a processor, by the same version. What is delivered is measured anew all the same.",
    )
    latency_ratio: Interval | None = Field(default=None, description="Original's latency over its own.")
    size_ratio: float | None = Field(default=None, description="Original's size over its own.")
    memory_ratio: float | None = Field(
        default=None,
        description="Original's peak memory over its own; null where it was not measured, as the objective gives it no "
        "weight.",
    )
    metric: float | None = Field(default=None, description="The job's metric.")
    drop: float | None = Field(default=None, description="Loss of the metric, as the contract bounds it.")
    holds: bool | None = Field(default=None, description="Whether that is within the contract, as an estimate.")


class TrainedEpoch(BaseModel):
    """One epoch of training that ended. What is no finite number is left out."""

    number: int = Field(ge=1, description="Of the epochs of this pass, from 1.")
    count: int = Field(ge=1, description="How many there are to be.")
    training: dict[str, float | None] = Field(
        max_length=8, description="Means over its samples: `loss`, and by name the terms that it is made of."
    )
    held_out_loss: float | None = Field(description="The same loss on the samples that are held out.")
    metric: str | None = Field(default=None, max_length=64, description="A metric that counts, where outputs have one.")
    value: float | None = Field(default=None, description="Its value on those samples, 0 to 1.")


class SearchReport(BaseModel):
    """How the delivered file was found."""

    explanation: list[str] = Field(description="Why this one, in sentences.")
    trials: list[TrialReport] = Field(description="Everything that was tried, in that order.")
    front: list[str] = Field(description="Names of the candidates on the Pareto front, the delivered one first.")
    seconds: float = Field(description="Time that the search took, measuring of the front included.")
    ended: str = Field(description="What ended it.")

    # As a worker of the release before leaves it, beside a database that is migrated. Until a migration
    # behind that release renames what such workers left.
    @model_validator(mode="before")
    @classmethod
    def _by_their_former_name(cls, said: Any) -> Any:
        if isinstance(said, dict) and "attempts" in said and "trials" not in said:
            return said | {"trials": said["attempts"]}
        return said


class Environment(BaseModel):
    """Where it was measured."""

    device: str = Field(description="`cpu` or `cuda`.")
    processor: str = Field(description="Name of the processor or GPU.")
    instruction_sets: list[str] = Field(description="Those that matter here: avx2, avx512f, avx512_vnni, amx_int8, ...")
    threads: int = Field(description="Threads a model was given.")
    batch: int = Field(description="Batch that latency was measured at.")
    shapes: dict[str, list[int]] = Field(description="Input shapes that latency was measured at.")
    versions: dict[str, str] = Field(
        description="onnxruntime, onnx, onnx-ir, numpy, scipy, torch where it is installed, Python, Lathe."
    )


CheckName = Annotated[
    Literal["loads", "same_answers", "extreme_values", "extreme_shapes", "memory", "threads", "without_vnni"], MayGrow()
]
CheckOutcome = Annotated[Literal["passed", "failed", "skipped"], MayGrow()]


class DeploymentCheck(BaseModel):
    """One question asked of the delivered file before somebody deploys it."""

    name: CheckName = Field(
        description="`loads`: in a fresh process with ONNX Runtime and numpy alone; `same_answers`: bit by bit, over "
        "repeated and concurrent calls; `extreme_values`, `extreme_shapes`: input at the edge, beside the original; "
        "`memory`: flat over many calls; `threads`: latency with 1, 2 and all threads; `without_vnni`: whether 8-bit "
        "products would saturate on another processor."
    )
    outcome: CheckOutcome = Field(description="`skipped` where it could not be judged.")
    words: str = Field(description="What was found, with its figures, or why it was skipped.")
    figures: dict[str, float] = Field(default_factory=dict, description="The figures; the unit ends the name.")


class EdgeInput(BaseModel):
    """One input at the edge, on the original and on the delivered file."""

    name: str = Field(description="`zeros`, `highest`, `largest_batch`, `longest AXIS`, ...")
    outcome: CheckOutcome = Field(
        description="`skipped` where the original does not run it or answers nothing finite, or no time was left."
    )
    words: str = Field(description="What was fed, and what came of it.")
    shapes: dict[str, list[int]] = Field(default_factory=dict, description="Shapes of the inputs.")
    agreement: float | None = Field(default=None, description="With the original, mean over samples and outputs.")
    sqnr_db: float | None = Field(
        default=None,
        description="Of the worst output of floats: the larger of its power here and on an ordinary sample, over the "
        "power of the difference. Each output is held to what it keeps of the ordinary sample.",
    )


class ThreadLatency(BaseModel):
    """Both files at one number of threads, timed by turns."""

    threads: int = Field(description="Threads of a model.")
    original: Latency = Field(description="The untouched original.")
    optimized: Latency = Field(description="The delivered file.")
    ratio: Interval = Field(description="Original's latency over the delivered file's: above 1 is faster.")


class Deployment(BaseModel):
    """Whether the delivered file can be put to work: what was checked, on the file itself."""

    checks: list[DeploymentCheck] = Field(description="Every check, with its outcome.")
    edge_inputs: list[EdgeInput] = Field(default_factory=list, description="Inputs at the edge, one by one.")
    latencies: list[ThreadLatency] = Field(default_factory=list, description="By number of threads, fewest first.")
    modules: list[str] = Field(
        default_factory=list,
        description="What the fresh process imported beside Python's standard library, by its own account.",
    )
    seconds: float = Field(description="Time that all of it took.")

    def failed(self) -> list[DeploymentCheck]:
        return [check for check in self.checks if check.outcome == "failed"]


class Report(BaseModel):
    """Everything a job measured."""

    baseline: Measurement = Field(description="The untouched original.")
    candidates: list[Candidate] = Field(description="The optimized files, the delivered one first.")
    steps: list[Step] = Field(description="The passes as they ran.")
    verdict: Verdict = Field(description="Whether the contract holds, and what lies behind it.")
    environment: Environment = Field(description="The machine and the settings that every figure here belongs to.")
    data: dict[str, str] = Field(description="What each role's data was, in words; random input is named as such.")
    warnings: list[str] = Field(default_factory=list, description="What a reader should know before trusting a number.")
    deployment: Deployment | None = Field(
        default=None,
        description="The deployment check of the delivered file; null where none was asked for, and where a search "
        "delivers the original, with a warning that says so.",
    )
    search: SearchReport | None = Field(default=None, description="Of `auto`: what was tried, and why this one won.")
    manifest: dict[str, Any] = Field(description="Hashes of the inputs, the recipe, the seed: what another run needs.")


class Figures(BaseModel):
    """The figures of one file that fit on one line."""

    size_bytes: int = Field(description="The file.")
    latency_ms: Finite = Field(description="Median time of one call.")
    throughput_per_second: Finite = Field(description="Samples a second.")
    peak_memory_bytes: int = Field(description="Peak resident memory.")
    metric: float | None = Field(description="The metric of the job.")


class Summary(BaseModel):
    """The answer at a glance."""

    metric: str = Field(description="The metric of the job.")
    baseline: Figures = Field(description="The original.")
    optimized: Figures = Field(description="The delivered file.")
    file_name: str | None = Field(
        default=None, description="Of the delivered file, among the job's artifacts; null of jobs of earlier releases."
    )
    ratio: dict[str, Finite] = Field(
        description="Original over optimized, `size`, `latency`, `memory`: above 1 is better; `metric`: the difference."
    )
