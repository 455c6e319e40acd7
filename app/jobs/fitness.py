"""Whether a request can be carried out on its model and data, as far as that is known without opening them."""

import math
from collections.abc import Mapping
from itertools import combinations, pairwise

from app.config import Settings
from app.datasets.inspection import ArraySpec, DatasetInspection
from app.datasets.matching import Axes, fits, match
from app.datasets.tables import DatasetRow
from app.errors import DataMismatch, DataRequired, NotTrainable, Unprocessable
from app.jobs.metric_choice import SCORES, axes_of_classes, choose_metric, row_of, size_of
from app.jobs.naming import MOST_NAMED, named, untrainable
from app.jobs.search_fitness import check_floor, judging_arrays, settle_search
from app.models.inspection import ModelInspection, TensorSpec
from app.models.tables import ModelRow
from app.recipes.aware import QuantizeAwareTraining
from app.recipes.base import PassConfig
from app.recipes.catalogue import CATALOGUE, AnyPass, PassEntry, Recipe
from app.recipes.quantization import QuantizeStatic
from app.recipes.request import OptimizeRequest
from app.recipes.structure import PruneStructured

INT8_BITS = 8
LABEL_DTYPES = ("int", "uint", "bool", "float")
OR_GIVEN = (
    ', or submit the recipe as `search.given` with `"recipe": "auto"`, which sets samples of other data aside for it '
    "or makes some up"
)
LABELS_WANTED = "Give the number of the class of each sample, or as many numbers as the output holds."


class BudgetTooLarge(Unprocessable):
    code, title = "budget_too_large", "The budget is larger than this service allows"


class PassMisplaced(Unprocessable):
    code, title = "pass_misplaced", "A pass of the recipe cannot stand where it does"


class DeviceNotServed(Unprocessable):
    code, title = "device_not_served", "A pass of the recipe does not work for the target's device"


def check_fitness(
    request: OptimizeRequest, model: ModelRow, datasets: Mapping[str, DatasetRow], settings: Settings
) -> OptimizeRequest:
    """The request with its defaults filled in. Raises the first thing that makes it impossible."""
    facts = ModelInspection.model_validate(model.inspection)
    arrays = {role: DatasetInspection.model_validate(row.inspection).arrays for role, row in datasets.items()}
    if request.budget_seconds is not None and request.budget_seconds > settings.jobs.max_budget_seconds:
        raise BudgetTooLarge(
            f"`budget_seconds` is {request.budget_seconds}; the most is {settings.jobs.max_budget_seconds}.",
            remedy="Ask for less; LATHE_JOBS_MAX_BUDGET_SECONDS sets the most.",
        )
    for recipe in request.recipes:
        _check_order(recipe)
        _check_passes(recipe, request, facts, arrays)
    _check_shapes(request, facts)
    for role, specs in arrays.items():
        match(facts.inputs, specs, f"the {role} dataset")
    # Before the arrays that nothing reads: a label array whose name was misspelt is one of them.
    metric = choose_metric(request.metric, facts, judging_arrays(request, arrays))
    for role, specs in arrays.items():
        _check_strangers(role, specs, facts, request)
    settled = request.model_copy(
        update={
            "metric": metric,
            "budget_seconds": request.budget_seconds or settings.jobs.default_budget_seconds,
        }
    )
    check_floor(settled)
    return settle_search(settled, facts) if settled.recipe == "auto" else settled


def _check_order(recipe: Recipe) -> None:
    for config, following in pairwise(recipe):
        if CATALOGUE[config.pass_].comes_last:
            raise PassMisplaced(
                f"The pass `{config.pass_}` is followed by `{following.pass_}`, and nothing can work on what it makes.",
                remedy=f"Put `{config.pass_}` last, once.",
            )
    for before, config in combinations(recipe, 2):
        entry, earlier = CATALOGUE[config.pass_], CATALOGUE[before.pass_]
        if "student" in config.other_models():
            raise PassMisplaced(
                f"The pass `{config.pass_}` delivers its `student`, and what `{before.pass_}`, which comes before it, "
                "does to the job's model would be thrown away.",
                remedy=f"Put `{config.pass_}` first.",
            )
        if earlier.name == "prune_unstructured":
            _check_zeros_stay(config)
        useless = {entry.name} if _leaves_arithmetic(before) else {entry.name, *entry.not_after}
        if earlier.lowers_precision and earlier.name in useless:
            raise PassMisplaced(
                f"The pass `{config.pass_}` finds nothing to do behind `{before.pass_}`.",
                remedy="Leave one of the two out.",
            )
        if entry.needs_float32_weights and earlier.lowers_precision:
            raise PassMisplaced(
                f"The pass `{config.pass_}` works on weights in float32, and `{before.pass_}`, which comes before it, "
                "stores them in fewer bits.",
                remedy=f"Leave out `{before.pass_}`."
                if entry.lowers_precision
                else f"Put `{config.pass_}` before `{before.pass_}`.",
            )


def _leaves_arithmetic(config: AnyPass) -> bool:
    """Whether a pass that runs models in int8 is asked to store weights in fewer bits, and no more than that."""
    return isinstance(config, QuantizeStatic) and config.bits != INT8_BITS


def _check_zeros_stay(config: AnyPass) -> None:
    """Behind `prune_unstructured`."""
    if isinstance(config, QuantizeAwareTraining) and config.weight_bits == "binary":
        raise PassMisplaced(
            f"The pass `{config.pass_}` with `weight_bits` `binary` makes every weight -1 or 1 times a scale: the "
            "zeros that `prune_unstructured` makes before it would be gone.",
            remedy="Give other `weight_bits`, as `ternary`, or leave out `prune_unstructured`.",
        )
    if config.fits_weights:
        or_without = ", or set its `recovery` to false" if isinstance(config, PruneStructured) else ""
        raise PassMisplaced(
            f"The pass `{config.pass_}` fits weights anew: the zeros that `prune_unstructured` makes before it would "
            "be gone.",
            remedy=f"Put `{config.pass_}` first{or_without}.",
        )


def _check_passes(
    recipe: Recipe, request: OptimizeRequest, facts: ModelInspection, arrays: Mapping[str, list[ArraySpec]]
) -> None:
    given = set(request.data.roles())
    if request.recipe == "auto":
        given.add("calibration")  # of whatever there is a search sets samples aside for it, or makes some up
    known = True  # whether what a pass is given is the job's model still
    for config in recipe:
        entry = CATALOGUE[config.pass_]
        needs = entry.needs(config)
        if request.target.device not in entry.devices:
            raise DeviceNotServed(
                f"The pass `{entry.name}` does not work for the device `{request.target.device}`.",
                remedy=f"Leave it out, or set `target.device` to {' or '.join(entry.devices)}.",
            )
        for role in ("calibration", "training"):
            if f"{role}_data" in needs and role not in given:
                raise DataRequired(
                    f"The pass `{entry.name}` needs {role} data.",
                    remedy=f"Upload a dataset and name it as `data.{role}`{OR_GIVEN if role == 'calibration' else ''}.",
                )
        known = known and "student" not in config.other_models()
        _check_training_labels(entry, config, facts, arrays.get("training", []), known=known)
        if "trainable_model" in needs and known and not facts.trainable:
            raise NotTrainable(
                f"The pass `{entry.name}` trains, and the model cannot be trained: {untrainable(facts)}.",
                remedy="Leave out the passes that train.",
            )


def _check_training_labels(
    entry: PassEntry, config: PassConfig, facts: ModelInspection, arrays: list[ArraySpec], *, known: bool
) -> None:
    """Labels are what the job's model does not take, whatever is trained; outputs are its own only where `known`."""
    inputs = {spec.name for spec in facts.inputs}
    labels = [array for array in arrays if array.name not in inputs]
    if "labels" in entry.needs(config) and not labels:
        raise DataRequired(
            f"The pass `{entry.name}` needs labels, and every array of the training dataset is an input of the model.",
            remedy="Add an array with the label of each sample.",
        )
    for argument, outputs in (("labels", config.training_labels()), ("kinds", config.training_kinds())):
        for output in outputs:
            if known and output not in {spec.name for spec in facts.outputs}:
                raise DataMismatch(
                    f"`{argument}` of the pass `{entry.name}` names the output `{output}`; the model's outputs are "
                    f"{_names(facts.outputs)}.",
                    remedy="Name one of them.",
                )
    for label in config.training_labels().values():
        if label not in {array.name for array in labels}:
            raise DataMismatch(
                f"`labels` of the pass `{entry.name}` names the array `{label}`; besides the model's inputs the "
                f"training dataset has {_names(labels) or 'none'}.",
                remedy="Name one of its arrays.",
            )
    if known and labels:
        _check_label_shapes(entry, config, facts, arrays, labels)


def _check_label_shapes(
    entry: PassEntry, config: PassConfig, facts: ModelInspection, arrays: list[ArraySpec], labels: list[ArraySpec]
) -> None:
    """Refuses what can be no labels, whatever it holds: an array that is named as those of an output; and where a pass
    cannot do without labels, every array.
    """
    outputs = {spec.name: spec for spec in facts.outputs if spec.dtype.startswith(SCORES)}
    rows = {name: row_of(spec, facts, arrays) for name, spec in outputs.items()}
    needed = "labels" in entry.needs(config)
    by_name = {array.name: array for array in labels}
    chosen = config.training_labels() or {name: name for name in outputs if needed and name in by_name}
    for output, label in chosen.items():
        if output in outputs and not _may_be_labels(by_name[label], rows[output]):
            raise DataMismatch(
                f"{_in_words(by_name[label])} of the training dataset cannot be the labels of the output "
                f"{_in_words(outputs[output])}.",
                remedy=LABELS_WANTED,
            )
    if needed and not chosen and not any(_may_be_labels(label, row) for label in labels for row in rows.values()):
        raise DataMismatch(
            f"No array of the training dataset can be labels for the pass `{entry.name}`: beside the model's inputs it "
            f"has {', '.join(map(_in_words, labels[:MOST_NAMED]))}; outputs of floats are "
            f"{', '.join(map(_in_words, [*outputs.values()][:MOST_NAMED])) or 'none'}.",
            remedy=LABELS_WANTED,
        )


def _may_be_labels(label: ArraySpec, row: Axes | None) -> bool:
    """Of an output that holds `row` for a sample: numbers of its classes, or as many numbers as it holds."""
    if row is None:
        return True
    given = label.shape[1:]
    as_many = size_of(row) in (None, math.prod(given))
    return label.dtype.startswith(LABEL_DTYPES) and (as_many or any(fits(given, axes) for axes in axes_of_classes(row)))


def _in_words(tensor: ArraySpec | TensorSpec) -> str:
    return f"`{tensor.name}` {tensor.dtype} {tensor.shape}"


def _check_shapes(request: OptimizeRequest, facts: ModelInspection) -> None:
    inputs = {spec.name: spec for spec in facts.inputs}
    for name, shape in (request.target.shapes or {}).items():
        if name not in inputs:
            raise DataMismatch(
                f"`target.shapes` names `{name}`; the model's inputs are {_names(facts.inputs)}.",
                remedy="Name an input of the model, or leave the shape out.",
            )
        wanted = inputs[name].shape
        if wanted is not None and not fits(shape, wanted):
            raise DataMismatch(
                f"`target.shapes.{name}` is {shape}; the model wants {wanted}.",
                remedy="Give a number for each axis; those that the model fixes must be as it has them.",
            )


def _check_strangers(role: str, arrays: list[ArraySpec], facts: ModelInspection, request: OptimizeRequest) -> None:
    known = {spec.name for spec in facts.inputs}
    known |= {name for config in request.passes for name in config.training_labels().values()}
    labels = request.metric.labels if request.metric else None
    if role == "training":
        known |= {spec.name for spec in facts.outputs}
    strangers = [array.name for array in arrays if array.name not in known and array.name != labels]
    # Without a named label array, one array too many can only be the labels; more than one cannot be told apart.
    if strangers and (labels is not None or len(strangers) > 1):
        raise DataMismatch(
            f"No input of the model bears the name of these arrays of the {role} dataset: {named(strangers)}. "
            f"The inputs are {_names(facts.inputs)}.",
            remedy="Rename the arrays, leave them out, or name the labels in `metric.labels`; those that a pass learns "
            "from in its `labels`.",
        )


def _names(specs: list[ArraySpec] | list[TensorSpec]) -> str:
    return named([spec.name for spec in specs])
