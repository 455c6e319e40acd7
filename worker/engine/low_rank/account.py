"""What was factored and what was not, in words and node by node."""

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from app.jobs.report import Factors, Layer
from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.fidelity import Power
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.plan import Plan
from worker.engine.low_rank.searching import Trial
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.random_input import RANDOM_SOURCE
from worker.engine.tensor_fidelity import LAYER_SAMPLES

TOO_SMALL = "no rank is small enough to be worth while"
NOT_CHOSEN = "no rank paid for what it loses"
NOT_GIVEN = "the recipe gives it no ranks"
NOT_FINITE_INPUT = "NaN or infinity reaches it with this data"
NOT_PROFILED = "the runtime runs it as a part of another kernel"


def source_in_words(context: PassContext, samples: int) -> list[str]:
    if context.feeds.source == RANDOM_SOURCE:
        return [
            "No data was given: weights were factored by their plain SVD, and what the outputs keep was measured on "
            "random input, which says little of real ones."
        ]
    return [f"Factors were fitted to {samples} samples of {context.feeds.source}."]


def left_in_words(reasons: Mapping[str, str]) -> list[str]:
    counts = Counter(reasons.values())
    return [f"Left whole: {count} nodes ({reason})." for reason, count in sorted(counts.items())]


def in_words(plan: Plan, trial: Trial) -> list[str]:
    """How much is factored in which forms, and what the outputs keep."""
    forms = Counter(shape.form for shape in trial.chosen.values())
    listed = ", ".join(f"{count} as `{form}`" for form, count in sorted(forms.items()))
    before = sum(plan.factorings[name].place.parameters for name in trial.chosen)
    after = sum(shape.parameters for shape in trial.chosen.values())
    refitted = "" if trial.last is None else " Last factors were fitted anew behind the others by least squares."
    return [
        f"Factored {len(trial.chosen)} nodes ({listed}): {after:,} weights in place of {before:,}.{refitted}",
        f"On samples that nothing was fitted to, or all where there are few, the outputs keep "
        f"{trial.fidelity.in_words()}.",
    ]


def outputs_sqnr_db(plan: Plan, chosen: Collection[str], factored: ModelFile, context: PassContext) -> dict[str, float]:
    """Signal to noise at the output of every node that is factored, by its name: what was lost up to there.

    Raises:
        ModelFails: a call fails.

    """
    outputs = {name: plan.factorings[name].place.product.node.outputs[0].name or "" for name in chosen}
    names, samples = dict.fromkeys(outputs.values(), FLOAT), np.arange(min(LAYER_SAMPLES, context.feeds.sample_count))
    powers = {name: Power() for name in outputs}
    exact = exposed_calls(plan.model, names, context, samples, "layers-whole")
    made = exposed_calls(factored, names, context, samples, "layers-factored")
    for left, right in zip(exact, made, strict=True):
        for name, output in outputs.items():
            powers[name].add(left[output], right[output])
    return {name: power.db for name, power in powers.items()}


def layers_of(
    plan: Plan,
    chosen: Mapping[str, Shape],
    reasons: Mapping[str, str],
    whole_ms: Mapping[str, float],
    factored_ms: Mapping[str, float],
    sqnr_db: Mapping[str, float],
) -> list[Layer]:
    """One a node that could be factored, in the order of the graph."""
    layers = []
    for name, factoring in plan.factorings.items():
        place, shape = factoring.place, chosen.get(name)
        layers.append(
            Layer(
                name=name,
                operator=place.product.node.op_type,
                reason=None if shape is not None else reasons.get(name),
                float_ms=whole_ms.get(name),
                executed_ms=factored_ms.get(name) if shape is not None else None,
                sqnr_db=sqnr_db.get(name),
                weight=place.weight,
                factors=None
                if shape is None
                else Factors(
                    form=shape.form,
                    shape=list(place.shape),
                    ranks=list(shape.ranks),
                    energy=1 - next(option.lost for option in factoring.options if option.shape == shape),
                    parameters_before=place.parameters,
                    parameters_after=shape.parameters,
                ),
            )
        )
    return layers
