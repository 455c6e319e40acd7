"""Which metric judges a job, and whether the shapes of output and labels allow it."""

import math

from app.datasets.inspection import ArraySpec
from app.datasets.matching import TEXT, Axes, fits
from app.errors import DataRequired, MetricMismatch
from app.jobs.naming import named
from app.models.inspection import ModelInspection, TensorSpec
from app.recipes.request import LABEL_FREE, Metric

ERRORS = frozenset({"mse", "mae"})
# `f` of numpy's kinds, and `iub`.
SCORES, NUMBERS = ("float",), ("int", "uint", "bool")
NAME_ONE = "Name an output of numbers as `metric.output`"
EXPORT = "export the model with an output that is a tensor of them: skl2onnx does with `options={'zipmap': False}`"


def choose_metric(metric: Metric | None, facts: ModelInspection, arrays: list[ArraySpec] | None) -> Metric:
    """The metric of the job: as asked, or `top1` where the data has labels for it, else `agreement`.

    `arrays` are the evaluation data's; None where there is none. Raises DataRequired and MetricMismatch.
    """
    inputs = {spec.name for spec in facts.inputs}
    labels = {array.name: array for array in arrays or [] if array.name not in inputs}
    output = _find_output(metric, facts.outputs)
    row = row_of(output, facts, arrays or [])
    chosen = metric or _default(output, row, labels)
    if output.dtype == TEXT and chosen.name != "agreement":
        raise MetricMismatch(
            f"`{chosen.name}` is of numbers, and the output `{output.name}` holds text.",
            remedy=f"{NAME_ONE}, use `agreement`, or {EXPORT}.",
        )
    if chosen.name in LABEL_FREE:
        return chosen.model_copy(update={"output": output.name, "labels": None})
    name = _find_labels(chosen, labels, arrays is not None)
    _check_shapes(str(chosen.name), output, labels[name], row)
    return chosen.model_copy(update={"output": output.name, "labels": name})


def _find_output(metric: Metric | None, specs: list[TensorSpec]) -> TensorSpec:
    """The output that is named; else the first of numbers, or where there is none the first of text.

    Raises:
        MetricMismatch: it is no output of the model, or what it holds cannot be compared.

    """
    wanted = [spec for spec in specs if metric is None or metric.output in (None, spec.name)]
    if not wanted:
        raise MetricMismatch(
            f"`metric.output` is `{metric and metric.output}`; the model's outputs are "
            f"{named([spec.name for spec in specs])}.",
            remedy="Name one of them, or leave it out for the first that holds numbers.",
        )
    for kinds in (SCORES + NUMBERS, (TEXT,)):
        for spec in wanted:
            if spec.dtype.startswith(kinds):
                return spec
    held = ", ".join(f"`{spec.name}` {spec.dtype}" for spec in wanted)
    raise MetricMismatch(
        f"Quality is measured on tensors of numbers or text, and here is none: {held}.",
        remedy=f"{NAME_ONE}, or {EXPORT}.",
    )


def _default(output: TensorSpec, row: Axes | None, labels: dict[str, ArraySpec]) -> Metric:
    numbered = len(labels) == 1 and all(_number_classes(array, row) for array in labels.values())
    classes = _is_class_scores(output) or _is_class_numbers(output, row)
    return Metric(name="top1" if numbered and classes else "agreement")


def _number_classes(labels: ArraySpec, row: Axes | None) -> bool:
    """Whether labels look like the number of a class for each sample. Those in booleans or a column may be something
    else where it is not known that an output holds one row of a certain size for each sample.
    """
    if len(labels.shape) == 1 and labels.dtype.startswith(("int", "uint")):
        return True
    certain = row is not None and len(row) <= 1 and size_of(row) is not None
    return certain and labels.shape[1:] in ([], [1]) and labels.dtype.startswith(NUMBERS)


def _is_class_scores(output: TensorSpec) -> bool:
    """Whether an output looks like (N, classes): a regression's (N, 1) is no classifier's."""
    shape = output.shape
    return shape is not None and len(shape) == 2 and shape[1] != 1 and output.dtype.startswith(SCORES)


def _is_class_numbers(output: TensorSpec, row: Axes | None) -> bool:
    """Whether an output holds one whole number or truth value a sample; `row` as `row_of` has it."""
    shape = output.shape or []
    if row is None and shape and not isinstance(shape[0], int):
        row = shape[1:]  # an open axis counts samples as far as is known
    return output.dtype.startswith(NUMBERS) and row is not None and size_of(row) == 1


def _find_labels(metric: Metric, labels: dict[str, ArraySpec], has_data: bool) -> str:
    if not has_data:
        raise DataRequired(
            f"The metric `{metric.name}` needs labels, and no evaluation data was given.",
            remedy="Name a dataset as `data.evaluation`, or use a metric without labels: agreement, cosine, sqnr_db.",
        )
    if metric.labels is None and len(labels) == 1:
        return next(iter(labels))
    if metric.labels is None or metric.labels not in labels:
        there_are = f"besides the model's inputs it has {named(list(labels)) or 'none'}"
        raise MetricMismatch(
            f"The evaluation dataset has no array `{metric.labels}`; {there_are}."
            if metric.labels
            else f"The metric `{metric.name}` needs one label array of the evaluation dataset; {there_are}.",
            remedy="Name the label array as `metric.labels`, or use a metric without labels.",
        )
    return metric.labels


def row_of(output: TensorSpec, facts: ModelInspection, arrays: list[ArraySpec]) -> Axes | None:
    """Axes of what an output holds for one sample, as the worker will cut it; None where that is not known here."""
    ranks = {array.name: len(array.shape) for array in arrays}
    ranked = {spec.name: spec.shape for spec in facts.inputs if spec.shape is not None}
    if output.shape is None or len(ranked) < len(facts.inputs):
        return None
    if any(ranks.get(name) == len(shape) + 1 for name, shape in ranked.items()):
        return output.shape  # an entry is a whole feed, its batch included
    batches = {shape[0] for shape in ranked.values() if shape} - {None}
    return output.shape[1:] if output.shape[:1] and output.shape[0] in batches else None


def _check_shapes(metric: str, output: TensorSpec, labels: ArraySpec, row: Axes | None) -> None:
    """Raises MetricMismatch where the labels can be no answer to the output, whatever they hold."""
    if row is None or not output.dtype.startswith(SCORES + NUMBERS):
        return
    given, what = labels.shape[1:], f"the output `{output.name}` {output.shape}"
    one_by_one = metric in ERRORS or output.dtype.startswith(NUMBERS)
    wanted = [row] if one_by_one else []
    if metric not in ERRORS:
        wanted += axes_of_classes(row, last_only=metric == "top5")
    if any(fits(given, axes) for axes in wanted) or (one_by_one and size_of(row) in (None, math.prod(given))):
        return
    if not wanted:
        raise MetricMismatch(
            f"`{metric}` wants scores of classes, and {what} holds none.",
            remedy="Name another output as `metric.output`, or use a metric for numbers: mse, mae.",
        )
    shapes = " or ".join(str([labels.shape[0], *axes]) for axes in wanted)
    one_hot = metric not in ERRORS and fits(given, row)
    raise MetricMismatch(
        f"The label array `{labels.name}` is {labels.shape}; for {what} and this data `{metric}` wants {shapes}.",
        remedy=f"Save the number of each class and not a row of classes: `{labels.name}.argmax(axis=-1)`."
        if one_hot
        else "Reshape the labels, or choose another metric, output or label array.",
    )


def axes_of_classes(row: Axes, *, last_only: bool = False) -> list[Axes]:
    """Axes, for one sample, of labels that number classes: of scores that lie on the last axis of `row` or, as in
    segmentation, on the first; with or without an axis of one in that place.
    """
    places = [len(row) - 1] if last_only else [len(row) - 1, 0]
    scored = [place for place in dict.fromkeys(places) if row and row[place] != 1]
    return [[*row[:place], *one, *row[place + 1 :]] for place in scored for one in ([], [1])]


def size_of(axes: Axes) -> int | None:
    """Elements; None where an axis is not fixed."""
    fixed = [axis for axis in axes if isinstance(axis, int)]
    return math.prod(fixed) if len(fixed) == len(axes) else None
