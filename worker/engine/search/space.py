"""What is tried first: every method by itself, with its defaults."""

from collections.abc import Iterator, Sequence

from app.recipes.auto import Search
from app.recipes.catalogue import CATALOGUE, AnyPass
from app.recipes.graph import ConvertFloat16, OptimizeGraph
from app.recipes.quantization import QuantizeDynamic, QuantizeStatic, QuantizeWeights
from worker.engine.search.ground import Ground
from worker.engine.search.proposals import Proposal, Ratios, Trial, find

# Of an int8 file against float32, scales and tables counted.
INT8_SIZE, INT4_SIZE = 3.8, 6.5


def allowed(recipe: Sequence[AnyPass], search: Search, device: str) -> bool:
    """Whether the request lets a candidate be made of these passes, for this device."""
    return all(search.allows(str(one.pass_)) and device in CATALOGUE[str(one.pass_)].devices for one in recipe)


def first_proposals(trials: Sequence[Trial], ground: Ground) -> Iterator[Proposal]:
    """One a method; the order in which they are tried is not decided here."""
    megabytes = ground.size_bytes / 1e6
    around = ground.measuring_seconds + (0.0 if trials else ground.preparing_seconds)
    yield Proposal(
        name="optimized graph",
        family="graph",
        recipe=(OptimizeGraph(**{"pass": "optimize_graph"}),),
        expected=Ratios(latency=1.02),
        chance=1.0,
        seconds=1.0 + megabytes / 50 + around,
        always=True,
    )
    yield Proposal(
        name="int8, static",
        family="static",
        recipe=(QuantizeStatic(**{"pass": "quantize_static"}),),
        expected=Ratios(latency=ground.static_speed, size=INT8_SIZE, memory=2.0),
        chance=0.7,
        seconds=8.0 + 6 * ground.forward_seconds + around,
        always=True,
    )
    yield Proposal(
        name="int8, dynamic",
        family="dynamic",
        recipe=(QuantizeDynamic(**{"pass": "quantize_dynamic"}),),
        expected=Ratios(latency=ground.dynamic_speed, size=INT8_SIZE if ground.product_share else 1.0, memory=2.0),
        chance=0.8,
        seconds=4.0 + around,
        always=True,
    )
    for bits, size in ((8, INT8_SIZE), (4, INT4_SIZE)):
        yield Proposal(
            name=f"weights in {bits} bits",
            family="weights",
            recipe=(QuantizeWeights(**{"pass": "quantize_weights", "bits": bits}),),
            expected=Ratios(latency=1.0, size=size),
            chance=0.9 if bits == 8 else 0.4,
            seconds=4.0 + megabytes / 20 + around,
            always=bits == 8,
            settings={"bits": bits},
        )
    yield Proposal(
        name="float16",
        family="float16",
        recipe=(ConvertFloat16(**{"pass": "convert_float16"}),),
        expected=Ratios(latency=1.8 if ground.device == "cuda" else 0.6, size=2.0, memory=1.5),
        chance=0.95,
        seconds=2.0 + megabytes / 50 + around,
        always=True,
    )


def smaller_proposals(trials: Sequence[Trial], ground: Ground) -> Iterator[Proposal]:
    """What int8 kernels left in float32 stored in 8 bits as well: the file gets smaller, and hardly slower."""
    for trial in find(trials, "static", "dynamic", "mixed", "aware"):
        if not trial.holds:
            continue
        yield Proposal(
            name=f"{trial.name}, the rest of the weights in 8 bits",
            family="smaller",
            recipe=(*trial.proposal.recipe, QuantizeWeights(**{"pass": "quantize_weights"})),
            expected=Ratios(trial.ratios.latency, trial.ratios.size * 1.05, trial.ratios.memory),
            chance=0.9,
            seconds=4.0 + ground.size_bytes / 20e6 + ground.measuring_seconds,
        )
