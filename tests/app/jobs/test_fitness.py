"""What is refused when a job is submitted, because it is known then that it cannot be carried out."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.config import Settings
from app.datasets.tables import DatasetRow
from app.errors import DataMismatch, DataRequired, LatheError, MetricMismatch
from app.jobs.fitness import BudgetTooLarge, DeviceNotServed, NotTrainable, PassMisplaced, check_fitness
from app.jobs.routing import needs_trainer
from app.jobs.search_fitness import NothingToTry, SearchContradictory
from app.models.tables import ModelRow
from app.recipes.request import OptimizeRequest

ID = UUID(int=1)
IMAGES = {"name": "image", "dtype": "float32", "shape": [100, 1, 8, 8]}
LABELS = {"name": "label", "dtype": "int64", "shape": [100]}
MODEL: dict[str, Any] = {
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["N", 1, 8, 8]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["N", 10]}],
    "opset": 17,
    "ir_version": 9,
    "domains": {},
    "parameter_count": 10,
    "mac_count": 10,
    "operators": {"Conv": 1},
    "trainable": True,
}
STATIC = [{"pass": "quantize_static"}]
COMPILE = [{"pass": "compile"}]
GRAPH = [{"pass": "optimize_graph"}]
PRUNE = [{"pass": "prune_unstructured", "sparsity": 0.5}]
PRUNE_AND_TRAIN = [{"pass": "prune_unstructured", "sparsity": 0.5, "training": {}}]
FINE_TUNE = [{"pass": "fine_tune"}]
DISTILL = [{"pass": "distill"}]
TRAINING = {"training": [IMAGES, LABELS]}
UNLABELLED = {"training": [IMAGES]}
NOT_TRAINABLE = MODEL | {"trainable": False, "training_blockers": ["If", "Loop"]}


def check(
    settings: Settings, body: dict[str, Any], arrays: dict[str, list[dict[str, Any]]], model: dict[str, Any] = MODEL
) -> OptimizeRequest:
    request = OptimizeRequest.model_validate({"model_id": str(ID), "data": dict.fromkeys(arrays, str(ID))} | body)
    rows = {
        role: DatasetRow(inspection={"arrays": specs, "sample_count": 100}, status="ready")
        for role, specs in arrays.items()
    }
    return check_fitness(request, ModelRow(inspection=model, status="ready"), rows, settings)


@dataclass
class Refusal:
    id: str
    error: type[LatheError]
    names: str
    recipe: list[dict[str, Any]] = field(default_factory=lambda: GRAPH)
    arrays: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=lambda: MODEL)


REFUSALS = [
    Refusal("static-without-calibration", DataRequired, "calibration", recipe=STATIC),
    Refusal("no-array-for-an-input", DataMismatch, "`image`", arrays={"evaluation": [LABELS]}),
    Refusal(
        "two-arrays-no-input-bears",
        DataMismatch,
        "`other`, `another`",
        arrays={"calibration": [IMAGES, LABELS | {"name": "other"}, LABELS | {"name": "another"}]},
    ),
    Refusal(
        "a-stranger-beside-named-labels",
        DataMismatch,
        "other",
        arrays={"evaluation": [IMAGES, LABELS, LABELS | {"name": "other"}]},
        body={"metric": {"name": "top1", "labels": "label"}},
    ),
    Refusal("wrong-rank", DataMismatch, "2 axes", arrays={"evaluation": [IMAGES | {"shape": [100, 64]}]}),
    Refusal("wrong-width", DataMismatch, "[100, 1, 9, 9]", arrays={"evaluation": [IMAGES | {"shape": [100, 1, 9, 9]}]}),
    Refusal("labels-without-data", DataRequired, "`top1`", body={"metric": {"name": "top1"}}),
    Refusal(
        "no-labels-at-all",
        MetricMismatch,
        "has none",
        arrays={"evaluation": [IMAGES]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "misspelt-labels",
        MetricMismatch,
        "no array `labl`; besides the model's inputs it has `label`",
        arrays={"calibration": [IMAGES, LABELS], "evaluation": [IMAGES, LABELS]},
        body={"metric": {"name": "top1", "labels": "labl"}},
    ),
    Refusal(
        "training-without-data-in-a-recipe-given-to-a-search",
        DataRequired,
        "training data",
        body={"recipe": "auto", "search": {"given": [STATIC, DISTILL]}},
    ),
    Refusal(
        "out-of-order-in-a-recipe-given-to-a-search",
        PassMisplaced,
        "`compile`",
        body={"recipe": "auto", "search": {"given": [COMPILE, [*COMPILE, *GRAPH]]}},
    ),
    Refusal(
        "passes-that-no-search-tries",
        NothingToTry,
        "no candidate of `fine_tune`, `compile` alone",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"passes": ["fine_tune", "compile"]}},
    ),
    Refusal(
        "passes-that-train-what-no-search-makes",
        NothingToTry,
        "`distill`",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"passes": ["distill"]}},
    ),
    Refusal(
        "training-with-passes-that-do-not",
        SearchContradictory,
        "`search.passes` allows none",
        arrays=TRAINING,
        body={"recipe": "auto", "search": {"training": True, "passes": ["quantize_static", "distill"]}},
    ),
    Refusal(
        "passes-beside-recipes-given-to-a-search",
        SearchContradictory,
        "`search.passes` could change nothing",
        body={"recipe": "auto", "search": {"given": [GRAPH], "passes": ["quantize_static"]}},
    ),
    Refusal(
        "a-number-beside-recipes-given-to-a-search",
        SearchContradictory,
        "`search.max_candidates` could change nothing",
        body={"recipe": "auto", "search": {"given": [GRAPH, COMPILE], "max_candidates": 1}},
    ),
    Refusal(
        "two-label-arrays",
        MetricMismatch,
        "`label`, `other`",
        arrays={"evaluation": [IMAGES, LABELS, LABELS | {"name": "other"}]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "one-hot-labels",
        MetricMismatch,
        "is [100, 10]; for the output `logits` ['N', 10] and this data `top1` wants [100]",
        arrays={"evaluation": [IMAGES, LABELS | {"shape": [100, 10]}]},
        body={"metric": {"name": "top1"}},
    ),
    Refusal(
        "flat-labels-for-whole-feeds",
        MetricMismatch,
        "`top1` wants [100, 'N']",
        arrays={"evaluation": [IMAGES | {"shape": [100, 1, 1, 8, 8]}, LABELS]},
    ),
    Refusal(
        "numbers-of-another-size",
        MetricMismatch,
        "`mse` wants [100, 10]",
        arrays={"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        body={"metric": {"name": "mse"}},
    ),
    Refusal("no-such-output", MetricMismatch, "`scores`", body={"metric": {"name": "cosine", "output": "scores"}}),
    Refusal("no-such-input-in-shapes", DataMismatch, "`x`", body={"target": {"shapes": {"x": [1]}}}),
    Refusal(
        "shape-that-does-not-fit", DataMismatch, "[1, 1, 9, 8]", body={"target": {"shapes": {"image": [1, 1, 9, 8]}}}
    ),
    Refusal("compile-then-another", PassMisplaced, "`optimize_graph`", recipe=[*COMPILE, *GRAPH]),
    Refusal("compile-twice", PassMisplaced, "followed by `compile`", recipe=[*COMPILE, *COMPILE]),
    Refusal("prune-after-int8", PassMisplaced, "`quantize_dynamic`", recipe=[{"pass": "quantize_dynamic"}, *PRUNE]),
    Refusal(
        "prune-long-after-few-bits",
        PassMisplaced,
        "`quantize_weights`, which comes before it, stores them in fewer bits",
        recipe=[{"pass": "quantize_weights"}, *GRAPH, *PRUNE],
    ),
    Refusal("prune-after-float16", PassMisplaced, "`convert_float16`", recipe=[{"pass": "convert_float16"}, *PRUNE]),
    Refusal(
        "what-fits-weights-after-zeros",
        PassMisplaced,
        "the zeros that `prune_unstructured`",
        recipe=[*PRUNE, *GRAPH, {"pass": "prune_structured", "ratio": 0.5}],
    ),
    Refusal(
        "factors-after-zeros",
        PassMisplaced,
        "`factorize_low_rank` fits weights anew",
        recipe=[*PRUNE, {"pass": "factorize_low_rank"}],
    ),
    Refusal(
        "what-has-no-zero-after-zeros",
        PassMisplaced,
        "`binary` makes every weight -1 or 1 times a scale: the zeros that `prune_unstructured`",
        recipe=[*PRUNE, *GRAPH, {"pass": "quantize_aware_training", "weight_bits": "binary"}],
        arrays=TRAINING | {"calibration": [IMAGES]},
    ),
    Refusal("compile-for-a-gpu", DeviceNotServed, "`cuda`", recipe=COMPILE, body={"target": {"device": "cuda"}}),
    Refusal("training-without-data", DataRequired, "`distill` needs training data", recipe=DISTILL),
    Refusal("pruning-with-training-without-data", DataRequired, "needs training data", recipe=PRUNE_AND_TRAIN),
    Refusal("no-labels-to-learn-from", DataRequired, "`fine_tune` needs labels", recipe=FINE_TUNE, arrays=UNLABELLED),
    Refusal(
        "labels-that-are-weighed-and-not-there",
        DataRequired,
        "`distill` needs labels",
        recipe=[{"pass": "distill", "gamma": 0.5}],
        arrays=UNLABELLED,
    ),
    Refusal(
        "labels-that-are-weighed-in-8-bits-and-not-there",
        DataRequired,
        "`quantize_aware_training` needs labels",
        recipe=[{"pass": "quantize_aware_training", "gamma": 0.5}],
        arrays=UNLABELLED | {"calibration": [IMAGES]},
    ),
    Refusal(
        "no-labels-for-another-student",
        DataRequired,
        "`fine_tune` needs labels",
        recipe=[{"pass": "distill", "student": str(ID)}, *FINE_TUNE],
        arrays=UNLABELLED,
    ),
    Refusal(
        "no-such-labels-for-another-student",
        DataMismatch,
        "`labl`; besides the model's inputs",
        recipe=[{"pass": "distill", "student": str(ID), "labels": {"its own": "labl"}}],
        arrays=TRAINING,
    ),
    *(
        Refusal(
            f"labels-are-all-that-{name}-could-learn-from",
            DataRequired,
            f"`{name}` needs labels",
            recipe=[{"pass": name, **arguments}],
            arrays=UNLABELLED | {"calibration": [IMAGES]},
        )
        for name, arguments in (
            ("distill", {"alpha": 0}),
            ("prune_unstructured", {"sparsity": 0.5, "training": {"alpha": 0}}),
            ("prune_structured", {"ratio": 0.5, "training": {"alpha": 0}}),
            ("factorize_low_rank", {"training": {"alpha": 0}}),
            ("quantize_aware_training", {"alpha": 0}),
        )
    ),
    Refusal("control-flow", NotTrainable, "`If`, `Loop`", recipe=DISTILL, arrays=TRAINING, model=NOT_TRAINABLE),
    Refusal(
        "pruning-with-training-of-control-flow",
        NotTrainable,
        "`prune_unstructured` trains",
        recipe=PRUNE_AND_TRAIN,
        arrays=TRAINING,
        model=NOT_TRAINABLE,
    ),
    Refusal(
        "labels-of-no-output",
        DataMismatch,
        "the output `scores`; the model's outputs are `logits`",
        recipe=[{"pass": "fine_tune", "labels": {"scores": "label"}}],
        arrays=TRAINING,
    ),
    Refusal(
        "labels-of-no-array",
        DataMismatch,
        "`labl`; besides the model's inputs the training dataset has `label`",
        recipe=[{"pass": "fine_tune", "labels": {"logits": "labl"}}],
        arrays=TRAINING,
    ),
    Refusal("training-in-few-bits", PassMisplaced, "`fine_tune`", recipe=[{"pass": "quantize_weights"}, *FINE_TUNE]),
    *(
        Refusal(
            f"{second}-after-{first}",
            PassMisplaced,
            f"`{first}`",
            recipe=[{"pass": first}, *GRAPH, {"pass": second}],
            arrays={"calibration": [IMAGES]},
        )
        for first, second in (
            ("quantize_static", "quantize_static"),
            ("quantize_static", "quantize_dynamic"),
            ("quantize_dynamic", "convert_float16"),
            ("quantize_aware_training", "convert_float16"),
            ("quantize_weights", "quantize_weights"),
            ("quantize_weights", "quantize_static"),
            ("convert_float16", "quantize_weights"),
            ("convert_float16", "convert_float16"),
        )
    ),
    Refusal(
        "distill-into-another-model-behind-a-pass",
        PassMisplaced,
        "what `optimize_graph`, which comes before it, does to the job's model would be thrown away",
        recipe=[*GRAPH, {"pass": "distill", "student": str(ID)}],
        arrays=UNLABELLED,
    ),
    Refusal("budget-too-large", BudgetTooLarge, "1000000", body={"budget_seconds": 1_000_000}),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_what_cannot_be_carried_out_is_refused_by_name(case: Refusal, settings: Settings) -> None:
    with pytest.raises(case.error) as caught:
        check(settings, {"recipe": case.recipe} | case.body, case.arrays, case.model)
    assert case.names in caught.value.detail
    assert caught.value.remedy


def test_recipes_given_to_a_search_stand_each_by_itself(settings: Settings) -> None:
    """Two that could not follow one another, and a calibration that the search sets samples aside for."""
    body = {"recipe": "auto", "search": {"given": [COMPILE, STATIC, DISTILL]}}
    settled = check(settings, body, TRAINING)
    assert settled.search is not None and settled.search.given is not None
    assert len(settled.search.given) == 3
    assert needs_trainer(settled)
    assert not needs_trainer(check(settings, {"recipe": "auto", "search": {"given": [STATIC]}}, TRAINING))


def test_a_request_that_was_settled_is_accepted_as_it_was(settings: Settings) -> None:
    """With every default filled in, as a job shows it."""
    settled = check(settings, {"recipe": "auto", "search": {"given": [GRAPH]}}, {"evaluation": [IMAGES]})
    again = settled.model_dump(mode="json", by_alias=True, exclude={"model_id", "data"})
    assert check(settings, again, {"evaluation": [IMAGES]}) == settled


@pytest.mark.parametrize(
    ("passes", "trains"),
    [
        pytest.param(None, True, id="all"),
        pytest.param(["quantize_static"], False, id="none that trains"),
        pytest.param(["quantize_static", "distill", "fine_tune"], False, id="nothing beside which it trains"),
        pytest.param(["prune_structured", "distill"], True, id="what was cut"),
        pytest.param(["quantize_static", "quantize_aware_training"], True, id="what was rounded"),
    ],
)
def test_a_search_trains_where_an_allowed_pass_does(passes: list[str] | None, trains: bool, settings: Settings) -> None:
    body = {"recipe": "auto", "search": {"passes": passes}}
    settled = check(settings, body, TRAINING)
    assert needs_trainer(settled) is settled.learns is trains
    assert not needs_trainer(check(settings, body, {"evaluation": [IMAGES]}))


def test_one_hot_labels_are_told_how_to_become_class_numbers(settings: Settings) -> None:
    arrays = {"evaluation": [IMAGES, LABELS | {"shape": [100, 10]}]}
    with pytest.raises(MetricMismatch) as caught:
        check(settings, {"recipe": GRAPH, "metric": {"name": "top1"}}, arrays)
    assert "label.argmax(axis=-1)" in str(caught.value.remedy)


def test_an_output_without_classes_is_said_to_have_none(settings: Settings) -> None:
    price = MODEL | {"outputs": [{"name": "price", "dtype": "float32", "shape": ["N", 1]}]}
    with pytest.raises(MetricMismatch, match=r"`price` .* holds none"):
        check(settings, {"recipe": GRAPH, "metric": {"name": "top1"}}, {"evaluation": [IMAGES, LABELS]}, price)


@pytest.mark.parametrize("few", [["quantize_dynamic", "quantize_weights"], ["quantize_weights", "convert_float16"]])
def test_bits_may_be_taken_last_and_from_what_is_left_in_float(few: list[str], settings: Settings) -> None:
    recipe = [*GRAPH, *PRUNE, *({"pass": name} for name in few), *COMPILE]
    assert len(check(settings, {"recipe": recipe}, {}).recipe) == 5


ALLOWED: list[tuple[str, list[dict[str, Any]], dict[str, list[dict[str, Any]]], dict[str, Any]]] = [
    ("without-labels", DISTILL, UNLABELLED, MODEL),
    ("with-labels", [*PRUNE_AND_TRAIN, *FINE_TUNE], TRAINING, MODEL),
    ("another-student-is-what-is-trained", [{"pass": "distill", "student": str(ID)}], TRAINING, NOT_TRAINABLE),
    (
        "outputs-of-another-student",
        [{"pass": "distill", "student": str(ID), "labels": {"its own": "label"}}],
        TRAINING,
        MODEL,
    ),
    ("pruned-once-needs-no-gradient", PRUNE, {}, NOT_TRAINABLE),
    (
        "units-that-go-while-the-others-stay-as-they-are",
        [*PRUNE, {"pass": "prune_structured", "ratio": 0.5, "recovery": False}],
        {},
        MODEL,
    ),
    (
        "zeros-in-bits-that-have-one",
        [*PRUNE, {"pass": "quantize_aware_training", "weight_bits": "ternary"}],
        TRAINING | {"calibration": [IMAGES]},
        MODEL,
    ),
    (
        "labels-that-a-pass-names",
        [{"pass": "fine_tune", "labels": {"logits": "label"}}],
        {"training": [IMAGES, LABELS, LABELS | {"name": "other"}]},
        MODEL | {"outputs": [*MODEL["outputs"], {"name": "other", "dtype": "float32", "shape": ["N", 1]}]},
    ),
]


@pytest.mark.parametrize(("recipe", "arrays", "model"), [one[1:] for one in ALLOWED], ids=[one[0] for one in ALLOWED])
def test_training_that_can_be_carried_out_is_accepted(
    recipe: list[dict[str, Any]],
    arrays: dict[str, list[dict[str, Any]]],
    model: dict[str, Any],
    settings: Settings,
) -> None:
    assert len(check(settings, {"recipe": recipe}, arrays, model).recipe) == len(recipe)


def test_compile_may_come_last(settings: Settings) -> None:
    assert len(check(settings, {"recipe": [*GRAPH, *COMPILE]}, {}).recipe) == 2


@dataclass
class Choice:
    id: str
    arrays: dict[str, list[dict[str, Any]]]
    metric: dict[str, Any] | None
    expected: tuple[str, str, str | None]
    outputs: list[dict[str, Any]] = field(default_factory=lambda: MODEL["outputs"])


CHOICES = [
    Choice("labels-mean-top1", {"evaluation": [IMAGES, LABELS]}, None, ("top1", "logits", "label")),
    Choice("no-labels-mean-agreement", {"evaluation": [IMAGES]}, None, ("agreement", "logits", None)),
    Choice("no-data-means-agreement", {}, None, ("agreement", "logits", None)),
    Choice(
        "float-labels-are-no-classes",
        {"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        None,
        ("agreement", "logits", None),
    ),
    Choice(
        "one-row-of-labels-for-each-whole-feed",
        {"evaluation": [IMAGES | {"shape": [100, 1, 1, 8, 8]}, LABELS | {"shape": [100, 1]}]},
        {"name": "top1"},
        ("top1", "logits", "label"),
    ),
    Choice(
        "a-class-for-every-pixel",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 8, 8]}]},
        {"name": "top1"},
        ("top1", "map", "label"),
        [{"name": "map", "dtype": "float32", "shape": ["N", 3, 8, 8]}],
    ),
    Choice(
        "class-numbers",
        {"evaluation": [IMAGES, LABELS]},
        {"name": "accuracy"},
        ("accuracy", "class", "label"),
        [{"name": "class", "dtype": "int64", "shape": ["N", 1]}],
    ),
    Choice(
        "numbers-that-are-flat",
        {"evaluation": [IMAGES, LABELS | {"dtype": "float32"}]},
        {"name": "mse"},
        ("mse", "price", "label"),
        [{"name": "price", "dtype": "float32", "shape": ["N", 1]}],
    ),
    Choice(
        "an-axis-that-may-be-no-batch",
        {"evaluation": [IMAGES, LABELS | {"shape": [100, 7]}]},
        {"name": "top1"},
        ("top1", "boxes", "label"),
        [{"name": "boxes", "dtype": "float32", "shape": ["boxes", 10]}],
    ),
    Choice(
        "the-only-labels-are-found", {"evaluation": [IMAGES, LABELS]}, {"name": "top5"}, ("top5", "logits", "label")
    ),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: case.id)
def test_the_metric_is_filled_in(case: Choice, settings: Settings) -> None:
    body: dict[str, Any] = {"recipe": GRAPH} | ({"metric": case.metric} if case.metric else {})
    metric = check(settings, body, case.arrays, MODEL | {"outputs": case.outputs}).metric
    assert metric is not None
    assert (metric.name, metric.output, metric.labels) == case.expected


@pytest.mark.parametrize(
    ("shape", "fits"),
    [([100, 1, 8, 8], True), ([100, 1, 1, 8, 8], True), ([100, 32, 1, 8, 8], True), ([100, 2, 8, 8], False)],
    ids=["batches-formed", "whole-feeds", "whole-feeds-of-a-batch", "another-channel-count"],
)
def test_how_an_array_meets_an_input(shape: list[int], fits: bool, settings: Settings) -> None:
    arrays = {"evaluation": [IMAGES | {"shape": shape}]}
    if fits:
        check(settings, {"recipe": GRAPH}, arrays)
    else:
        with pytest.raises(DataMismatch):
            check(settings, {"recipe": GRAPH}, arrays)


def test_every_default_is_filled_in(settings: Settings) -> None:
    request = check(settings, {"recipe": STATIC}, {"calibration": [IMAGES]})
    assert request.budget_seconds == settings.jobs.default_budget_seconds
    dumped = request.model_dump(mode="json", by_alias=True)["recipe"][0]
    assert dumped["pass"] == "quantize_static"
    assert dumped["per_channel"] == "auto" and dumped["calibration_samples"] == 256


def test_of_many_names_the_first_are_told_and_the_number_of_the_rest(settings: Settings) -> None:
    many = [IMAGES | {"name": f"array_{one}"} for one in range(1000)]
    with pytest.raises(DataMismatch) as refused:
        check(settings, {"recipe": GRAPH}, {"calibration": many})
    assert "`array_19` and 980 more" in refused.value.detail
    assert "array_20`" not in refused.value.detail
