"""Which recipes are refused when a job is submitted, for the order of their passes and what these need."""

from typing import Any

import pytest

from app.config import Settings
from app.errors import DataMismatch, DataRequired, NotTrainable
from app.jobs.fitness import DeviceNotServed, PassMisplaced
from app.jobs.routing import needs_trainer
from tests.app.jobs.refusals import GRAPH, ID, IMAGES, LABELS, MODEL, STATIC, Refusal, check

COMPILE = [{"pass": "compile"}]
PRUNE = [{"pass": "prune_unstructured", "sparsity": 0.5}]
PRUNE_AND_TRAIN = [{"pass": "prune_unstructured", "sparsity": 0.5, "training": {}}]
FINE_TUNE = [{"pass": "fine_tune"}]
DISTILL = [{"pass": "distill"}]
TRAINING = {"training": [IMAGES, LABELS]}
UNLABELLED = {"training": [IMAGES]}
NOT_TRAINABLE = MODEL | {"trainable": False, "training_blockers": ["If", "Loop"]}

REFUSALS = [
    Refusal("static-without-calibration", DataRequired, "calibration", recipe=STATIC),
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
            f"a-kind-of-no-output-in-{name}",
            DataMismatch,
            f"`kinds` of the pass `{name}` names the output `scores`; the model's outputs are",
            recipe=[{"pass": name, **arguments}],
            arrays=TRAINING,
        )
        for name, arguments in (
            ("fine_tune", {"kinds": {"scores": "classes"}}),
            ("prune_unstructured", {"sparsity": 0.5, "training": {"kinds": {"scores": "classes"}}}),
            ("prune_structured", {"ratio": 0.5, "training": {"kinds": {"scores": "classes"}}}),
            ("factorize_low_rank", {"training": {"kinds": {"scores": "classes"}}}),
        )
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
    Refusal(
        "no-weights",
        NotTrainable,
        "no constant in float32",
        recipe=DISTILL,
        arrays=TRAINING,
        model=MODEL | {"trainable": False},
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
        "nothing-that-could-be-labels",
        DataMismatch,
        "it has `label` int64 [100, 7]; outputs of floats are `logits` float32 ['N', 10]",
        recipe=FINE_TUNE,
        arrays={"training": [IMAGES, LABELS | {"shape": [100, 7]}]},
    ),
    Refusal(
        "labels-as-outputs-are-called-that-do-not-fit",
        DataMismatch,
        "`logits` float32 [100, 7] of the training dataset cannot be the labels of the output `logits`",
        recipe=FINE_TUNE,
        arrays={"training": [IMAGES, LABELS | {"name": "logits", "dtype": "float32", "shape": [100, 7]}]},
    ),
    Refusal(
        "labels-that-are-named-and-do-not-fit",
        DataMismatch,
        "`label` int64 [100, 2] of the training dataset cannot be the labels",
        recipe=[{"pass": "distill", "labels": {"logits": "label"}}],
        arrays={"training": [IMAGES, LABELS | {"shape": [100, 2]}]},
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
            ("quantize_static", "convert_float16"),
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
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_a_recipe_that_cannot_be_carried_out_is_refused_by_name(case: Refusal, settings: Settings) -> None:
    case.happens(settings)


def test_who_has_no_calibration_data_is_told_of_the_search_that_does_without(settings: Settings) -> None:
    """As where a search found the recipe, and set samples aside for it."""
    with pytest.raises(DataRequired) as caught:
        check(settings, {"recipe": STATIC}, {"evaluation": [IMAGES]})
    assert "`search.given`" in (caught.value.remedy or "")


def test_recipes_given_to_a_search_stand_each_by_itself(settings: Settings) -> None:
    """Two that could not follow one another, and a calibration that the search sets samples aside for."""
    body = {"recipe": "auto", "search": {"given": [COMPILE, STATIC, DISTILL]}}
    settled = check(settings, body, TRAINING)
    assert settled.search is not None and settled.search.given is not None
    assert len(settled.search.given) == 3
    assert needs_trainer(settled)
    assert not needs_trainer(check(settings, {"recipe": "auto", "search": {"given": [STATIC]}}, TRAINING))


@pytest.mark.parametrize("few", [["quantize_dynamic", "quantize_weights"], ["quantize_weights", "convert_float16"]])
def test_bits_may_be_taken_last_and_from_what_is_left_in_float(few: list[str], settings: Settings) -> None:
    recipe = [*GRAPH, *PRUNE, *({"pass": name} for name in few), *COMPILE]
    assert len(check(settings, {"recipe": recipe}, {}).recipe) == 5


ALLOWED: list[tuple[str, list[dict[str, Any]], dict[str, list[dict[str, Any]]], dict[str, Any]]] = [
    ("without-labels", DISTILL, UNLABELLED, MODEL),
    ("with-labels", [*PRUNE_AND_TRAIN, *FINE_TUNE], TRAINING, MODEL),
    (
        "classes-in-a-column-of-floats",
        FINE_TUNE,
        {"training": [IMAGES, LABELS | {"dtype": "float32", "shape": [100, 1]}]},
        MODEL,
    ),
    ("another-student-is-what-is-trained", [{"pass": "distill", "student": str(ID)}], TRAINING, NOT_TRAINABLE),
    (
        "outputs-of-another-student",
        [{"pass": "distill", "student": str(ID), "labels": {"its own": "label"}}],
        TRAINING,
        MODEL,
    ),
    (
        "halves-behind-weights-in-16-bits",
        [{"pass": "quantize_static", "bits": 16}, {"pass": "convert_float16"}],
        {"calibration": [IMAGES]},
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
